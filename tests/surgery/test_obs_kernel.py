"""The compiled kernel: the same for any number of threads; torch takes over where it cannot be."""

import pytest
import torch

from slimsearch import compiled
from slimsearch.surgery import obs, obs_kernel
from slimsearch.surgery.hessian import Hessian


@pytest.fixture
def fresh():
    obs_kernel.load.cache_clear()
    yield
    obs_kernel.load.cache_clear()


def solved() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    hessian = Hessian.zeros(200)
    hessian.add(torch.randn(300, 200, generator=generator))
    weights = torch.randn(90, 200, generator=generator)
    return obs.solve(weights, hessian.factor(0.01).upper, [[4000, 2000], [6000, 3000]])[0]


def test_number_of_threads_does_not_matter():
    if obs.backend() != "c":
        pytest.skip("no C compiler here")
    before = torch.get_num_threads()
    results = []
    try:
        upper = torch.randn(200, 200).triu() / 200 + torch.eye(200)
        weights = torch.randn(90, 200)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(obs.solve(weights, upper, [[4000, 2000], [6000, 3000]]))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0])
        assert results[0][1] == other[1]


def test_without_a_compiler_torch_solves(fresh, monkeypatch):
    expected = solved()
    obs_kernel.load.cache_clear()
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    assert obs.backend() == "torch"
    torch.testing.assert_close(solved(), expected, rtol=1e-4, atol=1e-5)


def test_a_source_that_does_not_compile_or_a_closed_folder(fresh, monkeypatch, tmp_path):
    broken = tmp_path / "broken.c"
    broken.write_text("int main( {", "utf-8")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        patch.setattr(obs_kernel, "SOURCE", broken)
        assert obs.backend() == "torch"
        assert not list((tmp_path / "cache" / "slimsearch").iterdir())
    obs_kernel.load.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(broken))  # a file, so no folder can be made in it
    assert obs.backend() == "torch"


def test_built_once(fresh, monkeypatch, tmp_path):
    if obs.backend() != "c":
        pytest.skip("no C compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        obs_kernel.load.cache_clear()
        assert obs.backend() == "c"
        assert len(list((tmp_path / "slimsearch").iterdir())) == 1
