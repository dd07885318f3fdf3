"""Valid ControlNets to damage, as a folder and as an official file, and what reads them before it draws."""

from __future__ import annotations

from pathlib import Path

import torch

from sanakit.transformer import ControlConfig, SanaTransformer, TransformerConfig, copy_base

BASE = TransformerConfig(width=8, depth=2, heads=1, cross_heads=1, text_width=8, latent_channels=4)


def make_folder(folder: Path) -> None:
    from sanakit.weights import save_control

    net = copy_base(SanaTransformer(BASE), 1)
    save_control(folder, net.control, net)


def make_file(folder: Path) -> None:
    from sanakit.transformer import ControlNet
    from sanakit.weights.formats import sana_control_pth, sana_pth

    config = ControlConfig(backbone=BASE, lead=1, base_depth=2)
    state = sana_pth.table(BASE).to_theirs(SanaTransformer(BASE).state_dict())
    state |= sana_control_pth.table(config).to_theirs(ControlNet(config).state_dict())
    torch.save({"state_dict": state}, folder / "x.pth")


def read_folder(folder: Path) -> None:
    _read(folder)


def read_file(folder: Path) -> None:
    _read(folder / "x.pth")


def _read(path: Path) -> None:
    from sanakit.weights import read_control_spec

    read_control_spec(path, BASE).build()
