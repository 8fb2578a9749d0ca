"""Where tensors lie in memory."""

import sys
from pathlib import Path

import pytest
import torch

from multidomain.training.device import prefer_large_pages


def large_pages() -> int:
    """KiB of large pages that this process has."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))


@pytest.mark.parametrize("rows", [0, 1, 1000, 300_000])
def test_values_stay_when_large_pages_are_asked_for(rows: int) -> None:
    tensor = torch.arange(rows * 16, dtype=torch.float32).view(rows, 16)
    prefer_large_pages(tensor)
    assert torch.equal(tensor, torch.arange(rows * 16, dtype=torch.float32).view(rows, 16))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages of a size of their own are Linux's")
def test_a_large_table_gets_large_pages_where_the_system_lends_them() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.is_file() or "[never]" in setting.read_text():
        pytest.skip("this system lends no large pages")
    before = large_pages()
    table = torch.ones(2_000_000, 16)  # 122 MiB
    prefer_large_pages(table)
    assert large_pages() - before >= 100 * 1024
