"""What the end of a test run says."""
import shutil
from pathlib import Path

TESTS = '''
import pytest

def test_of_photographs(shared_data): assert shared_data.is_dir()

def test_of_references(oracle): assert oracle.is_dir()

def test_of_a_machine(): pytest.skip('not on this machine')

def test_of_nothing(): pass
'''


def closing_lines(pytester) -> list[str]:
    """The last two lines of a run of TESTS in a checkout."""
    tests = pytester.path / 'checkout/tests'
    tests.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).parents[1] / 'conftest.py', tests)
    (tests / 'test_some.py').write_text(TESTS)
    return pytester.runpytest_inprocess('-q', '-p', 'no:cacheprovider', tests).outlines[-2:]


def test_one_line_says_what_is_skipped_without_reference_data(pytester):
    missing, closing = closing_lines(pytester)
    assert missing == '2 tests skipped: no reference data (../shared) beside this checkout'
    assert closing.startswith('1 passed, 3 skipped in ')
    (pytester.path / 'shared/data').mkdir(parents=True)
    missing, closing = closing_lines(pytester)
    assert missing == '1 test skipped: no reference data (../shared) beside this checkout'
    assert closing.startswith('2 passed, 2 skipped in ')
    (pytester.path / 'shared/oracle').mkdir()
    others, closing = closing_lines(pytester)
    assert 'reference data' not in others and closing.startswith('3 passed, 1 skipped in ')
