import math

import pytest
from rich.console import Console

from mmdet.visualization import comparison_table


def figures(gain, **other):
    names = dict(AP1=0.012, AP2=0.2, AP3=0.3, AP4=0.4, bAP=0.228, APr=0.05, APc=0.21, APf=0.33, AP=0.2549, AP50=0.4)
    return {f'lvis/{t}_{n}': f + gain for t in ('bbox', 'segm') for n, f in names.items()} | other


RESULTS = {
    'base': figures(0.0),
    'calibrated': figures(0.011),
    'dual': figures(0.02, **{'lvis/segm_APf': 0.325, 'lvis/bbox_AP1': math.nan}),
}


def test_rows_columns_and_gain():
    table = comparison_table(RESULTS)
    assert table.columns == ('AP1', 'AP2', 'AP3', 'AP4', 'bAP', 'APr', 'APc', 'APf', 'AP')
    settings = ['base', 'calibrated', 'dual', 'dual − base']
    assert [(row.kind, row.setting) for row in table.rows] == [(k, s) for k in ('mask', 'box') for s in settings]
    assert table.rows[0].figures == ('1.2', '20.0', '30.0', '40.0', '22.8', '5.0', '21.0', '33.0', '25.5')
    assert table.rows[3].figures == ('+2.0',) * 7 + ('−0.5', '+2.0')
    assert table.rows[6].figures[0] == table.rows[7].figures[0] == '-'


def test_markdown():
    lines = comparison_table(RESULTS).to_markdown().splitlines()
    assert lines[0] == '|  | scores | AP1 | AP2 | AP3 | AP4 | bAP | APr | APc | APf | AP |'
    assert len(lines) == 10 and len({line.count('|') for line in lines}) == 1
    assert lines[5].startswith('| mask | **dual − base** | **+2.0** |')


def test_terminal():
    console = Console(width=120, record=True, file=open('/dev/null', 'w'))
    console.print(comparison_table(RESULTS).to_rich())
    text = console.export_text()
    assert 'dual − base' in text and '25.5' in text and 'bAP' in text


def test_coco_figures_boxes_only_and_one_setting():
    table = comparison_table({'base': {'coco/bbox_AP': 0.5, 'coco/bbox_APs': -1.0, 'coco/bbox_AP50': 0.7}})
    assert table.columns == ('AP',)
    assert [(row.kind, row.setting, row.figures) for row in table.rows] == [('box', 'base', ('50.0',))]


@pytest.mark.parametrize('absent', [-1.0, math.nan])
def test_what_is_absent_is_a_dash(absent):
    table = comparison_table({'base': {'segm_AP': absent}, 'dual': {'segm_AP': 0.5}})
    assert [row.figures for row in table.rows] == [('-',), ('50.0',), ('-',)]


def test_metrics_beside_the_first_have_their_prefix():
    results = {
        setting: {
            'own/objects': 7,
            'lvis/bbox_AP': 0.1,
            'lvis/segm_AP': ap,
            'lvis/segm_APr': 0.3,
            'lvis_fixed/segm_AP': ap + 0.1,
            'lvis_pool/segm_AP-pooled-all': ap - 0.1,
            'lvis_pool/segm_AP-pooled-r': 0.05,
        }
        for setting, ap in (('base', 0.4), ('dual', 0.5))
    }
    table = comparison_table(results)
    assert table.columns == ('APr', 'AP')
    assert [(row.kind, row.figures) for row in table.rows if row.setting == 'dual'] == [
        ('mask', ('30.0', '50.0')),
        ('box', ('-', '10.0')),
        ('mask lvis_fixed', ('-', '60.0')),
        ('mask lvis_pool', ('5.0', '40.0')),
    ]
    assert [row.figures[1] for row in table.rows if '−' in row.setting] == ['+10.0', '+0.0', '+10.0', '+10.0']
