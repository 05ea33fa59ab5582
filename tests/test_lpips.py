from __future__ import annotations

import socket
import sys
import types
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import ball_cameras, ball_capture, random_gaussians
from torch import nn

import fourdgs as fd
from fourdgs import InputError, MissingDependency, Model, Static
from fourdgs.lpips import SMALLEST, find_weights, lpips, why_absent
from fourdgs.metrics import quantise


def alexnet() -> nn.Module:
    """Random weights under torchvision's names: the convolutions, a pooling, and a classifier that LPIPS never uses."""
    torch.manual_seed(0)
    network = nn.Module()
    network.features = nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
    )
    network.classifier = nn.Sequential(nn.Linear(4, 4))
    return network


@pytest.fixture(scope="module")
def network():
    return alexnet()


@pytest.fixture
def home(tmp_path, network, monkeypatch):
    """A torch home with a backbone in it; the linear layers are torchmetrics' own."""
    monkeypatch.delenv("FOURDGS_LPIPS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "alexnet-owt-00000000.pth")
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Fails the test at the first attempt to reach anything."""

    def refused(*args, **kwargs):
        pytest.fail("something tried to open a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(urllib.request, "urlopen", refused)
    monkeypatch.setattr(urllib.request, "urlretrieve", refused)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refused)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    monkeypatch.delenv("FOURDGS_LPIPS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))


def pictures(count: int = 2, height: int = 40, width: int = 48) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(size=(count, height, width, 3)).astype(np.float32))


def reference(network: nn.Module, first: torch.Tensor, second: torch.Tensor, monkeypatch) -> torch.Tensor:
    """torchmetrics' LPIPS over the same backbone, which it believes to be torchvision's."""
    from torchmetrics.functional.image import lpips as theirs

    models = types.SimpleNamespace(alexnet=lambda weights: network, AlexNet_Weights=types.SimpleNamespace(DEFAULT=0))
    monkeypatch.setattr(theirs, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    first, second = (quantise(picture).permute(0, 3, 1, 2) for picture in (first, second))
    return theirs.learned_perceptual_image_patch_similarity(first, second, "alex", reduction=None, normalize=True)


def test_it_is_that_of_torchmetrics(home, network, offline, monkeypatch):
    first = pictures(3)
    second = (first + 0.2 * torch.randn(first.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    ours = lpips(first, second)
    torch.testing.assert_close(ours.float(), reference(network, first, second, monkeypatch), rtol=1e-4, atol=1e-6)
    assert (ours > 0).all() and ours.dtype == torch.float64


def test_equal_pictures_are_at_zero_and_more_noise_is_further(home):
    truth, noise = pictures(), torch.randn(pictures().shape, generator=torch.Generator().manual_seed(2))
    far = [lpips((truth + level * noise).clamp(0, 1), truth) for level in (0.0, 0.05, 0.4)]
    assert far[0].tolist() == [0, 0] and (far[1] > 0).all() and (far[2] > far[1]).all()


def test_pictures_too_small_are_nan_and_others_must_agree(home):
    edge = pictures(height=SMALLEST)
    assert lpips(edge, edge).tolist() == [0, 0]
    assert lpips(edge[:, 1:], edge[:, 1:]).isnan().all()
    with pytest.raises(InputError, match="cannot be compared"):
        lpips(edge, edge[:1])


def test_without_weights_it_says_so_and_opens_no_connection(bare, offline, tmp_path):
    with pytest.raises(MissingDependency, match=r"no alexnet-owt-\*\.pth in .*nothing is downloaded"):
        lpips(pictures(), pictures())
    assert str(tmp_path) in why_absent()
    capture = ball_capture(tmp_path, ball_cameras(2, 32), split="test")
    table = fd.evaluate(Model(random_gaussians(20), Static()), capture, progress=False)
    assert "lpips" not in table and table.attrs["lpips"] == why_absent()


def test_evaluate_has_the_column_where_the_weights_are(home, offline, tmp_path):
    assert why_absent() == ""
    capture = ball_capture(tmp_path, ball_cameras(3, 32), split="test")
    model = Model(random_gaussians(20), Static())
    table = fd.evaluate(model, capture, progress=False)
    rendered = fd.render(model, capture.cameras).rgb
    from fourdgs.capture import true_pictures

    truth = true_pictures(*capture.pictures(), torch.tensor(model.background)).float() / 255
    np.testing.assert_allclose(table["lpips"], lpips(rendered, truth), rtol=1e-5)


def test_a_given_folder_comes_first(home, network, tmp_path, monkeypatch):
    given = tmp_path / "given"
    given.mkdir()
    monkeypatch.setenv("FOURDGS_LPIPS", str(given))
    assert find_weights().backbone.parent == home
    torch.save(network.state_dict(), given / "alexnet-owt-1.pth")
    (given / "lpips_alex.pth").write_bytes(find_weights().linear.read_bytes())
    assert {file.parent for file in find_weights()} == {given}


def test_damaged_weights_are_one_clear_message(home):
    file = next(home.iterdir())
    for content in (b"", b"no"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as weights"):
            lpips(pictures(), pictures(), find_weights()._replace(linear=Path(file)))
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="not what LPIPS"):
        lpips(pictures(1), pictures(1))


def test_weights_are_never_unpickled(home):
    class Harm:
        def __reduce__(self):
            return (print, ("unpickled",))

    torch.save({"features.0.weight": Harm()}, next(home.iterdir()))
    with pytest.raises(InputError, match="cannot be read as weights"):
        lpips(pictures(1), pictures(1))
