"""What the command-line tools share: options, and errors as one line."""
import os
import sys
import traceback
from argparse import Action, ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mmengine import Config
from mmengine.logging import MMLogger

from mmdet.errors import UserError, one_line

from .cfg_options import option_value
from .config import check_installation, load_config
from .dist import LAUNCHERS, end_processes
from .shared_end import SharedEnd
from .terminal import quieten


class ToolParser(ArgumentParser):
    """A tool's arguments; of several processes, which all have the same ones, the first says what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2."""
        if _launcher(sys.argv[1:]) != 'none' and os.environ['RANK'] != '0':
            sys.exit(2)
        super().error(message)


class CfgOptions(Action):
    """`--cfg-options KEY=VALUE ...` as in mmdetection, see `option_value`; a malformed item is a usage error."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        """Add the items to the dict."""
        options = dict(getattr(namespace, self.dest) or {})
        for item in values:
            key, equals, text = item.partition('=')
            if not equals:
                raise ArgumentError(self, f'expected KEY=VALUE items, got {item}; quote a value with spaces')
            try:
                options[key] = option_value(key, text)
            except (ValueError, SyntaxError) as error:
                raise ArgumentError(self, f'expected KEY=VALUE items, got {item} ({error})') from error
        setattr(namespace, self.dest, options)


def add_common_options(parser: ArgumentParser) -> None:
    """Add `--work-dir`, `--cfg-options`, `--launcher` and torchrun's `--local-rank`."""
    parser.add_argument('--work-dir', metavar='DIR', help='where everything is written (work_dirs/<config name>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='change keys of the config, e.g. train_dataloader.batch_size=4 "model.backbone.out_indices=(0,1,2,3)"; '
        'quotes within keep a comma: load_from="\'a,b.pth\'"',
    )
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='how several processes were started (torchrun: pytorch)'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')


def add_training_options(parser: ArgumentParser) -> None:
    """Add `--resume`, `--amp` and `--seed`."""
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue a run: from the given checkpoint, or from the last one in the work dir (from the start if none)',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on CUDA, bfloat16 on a CPU')
    parser.add_argument('--seed', type=seed, help="in the place of the config's randomness.seed")


def seed(text: str) -> int:
    """A seed numpy and torch both take: 0 to 4294967295."""
    number = int(text)
    if not 0 <= number < 2**32:
        raise ValueError
    return number


def config_from_arguments(args: Namespace) -> Config:
    """The config a command line names, changed as its options say.

    Args:
        args: with `config`, what `add_common_options` adds, and where the tool trains what `add_training_options` adds.

    Raises:
        ConfigError: see `load_config`.
    """
    cfg = load_config(args.config, args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    if getattr(args, 'seed', None) is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=args.seed)
    if getattr(args, 'resume', None) is not None:
        cfg.resume = args.resume
    cfg.launcher = args.launcher
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return cfg


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool; a mistake of the user ends it with one line on stderr and exit status 2.

    Where a launcher has started several processes, the failure of one ends the others too, and the first failure is
    said once.
    """
    shared_end = SharedEnd()
    try:
        check_installation()
        quieten(MMLogger.get_current_instance())
        shared_end = SharedEnd(_launcher(sys.argv[1:]))
        main()
        end_processes()
    except UserError as error:
        status, last_words = 2, f'error: {one_line(error)}\n'
    except KeyboardInterrupt:
        status, last_words = 130, 'interrupted\n'
    except Exception:
        if shared_end.is_alone:
            raise
        status, last_words = 1, traceback.format_exc()
    else:
        shared_end.leave(has_failed=False)
        return
    if shared_end.is_alone:
        end_processes()
    if shared_end.fail():
        print(last_words, end='', file=sys.stderr, flush=True)
    shared_end.leave(has_failed=True)
    sys.exit(status)


def _launcher(arguments: list[str]) -> str:
    """The launcher that a command line names, before anything else of it is looked at."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--launcher', nargs='?')
    named = parser.parse_known_args(arguments)[0].launcher
    return named if named in LAUNCHERS else 'none'
