"""Large blocks that are freed and wanted again come from the process, not from the system."""
import platform
import subprocess
import sys

import pytest

BYTES = 64 << 20
FAULTS_OF_A_BLOCK_TAKEN_AGAIN = f'''
import resource, sys
import numpy as np
from mmdet.utils.memory import keep_freed_memory

if sys.argv[1] == 'kept':
    keep_freed_memory()
np.ones({BYTES}, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones({BYTES}, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='other C libraries are left alone')
def test_a_block_taken_again_costs_no_page_faults():
    command = [sys.executable, '-c', FAULTS_OF_A_BLOCK_TAKEN_AGAIN]
    faults = {how: int(subprocess.check_output([*command, how])) for how in ('given back', 'kept')}
    assert faults['kept'] < faults['given back'] / 4, faults
