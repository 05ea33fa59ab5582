"""How many pictures a second of a talking avatar: posed and drawn, as a film, and as `drive_panel` shows them.

    python benchmarks/driving.py [--run runs/mine/rig] [--gaussians 12000] [--threads 2]

*posed*: the Gaussians alone; *drawn*: posed and drawn to 8 bits on the host, many times at once, as `talk` does;
*film*: with the MP4; *panel, moving* and *at rest*: a slider that moves every 5 ms, and full pictures one after the
other, up to their bytes, without a browser. On the CPU at 256 pixels, where CUDA is also at 800. Without a run the
avatar is the embedded one's rig (the puppet's with ``--rig puppet``) with Gaussians on its surface in grey.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

FRAMES = {"cpu": 64, "cuda": 640}
ROUNDS = 3


def scene(options: argparse.Namespace):
    """The avatar: a run's, or Gaussians scattered over a rig."""
    import torch

    import fourdgs as fd
    from fourdgs.rig import anny_rig, puppet_rig
    from fourdgs.rigged import Rigged
    from fourdgs.talking import avatar

    if options.run:
        return avatar(options.run)[0].to("cpu")
    rig = anny_rig() if options.rig == "anny" else puppet_rig()
    random = torch.Generator().manual_seed(0)
    corners = rig.rest[rig.faces]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    face = torch.multinomial(areas, options.gaussians, replacement=True, generator=random)
    shares = -torch.rand(options.gaussians, 3, generator=random).log()
    points = ((shares / shares.sum(1, keepdim=True))[:, :, None] * corners[face]).sum(1)
    cloud = fd.Gaussians.from_points(points.numpy(), torch.rand(len(points), 3, generator=random).numpy(), opacity=0.7)
    motion = Rigged(rig)
    motion.begin(cloud)
    motion.place(face)
    return fd.Model(cloud, motion)


def rate(work, count: int, device: str) -> float:
    """``count`` over the median seconds of `ROUNDS` calls, after one that does not count."""
    import torch

    spent = []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - begun)
    return count / statistics.median(spent[1:])


def films(model, size: int, device: str) -> dict[str, float]:
    """Frames a second of posing, of drawing, and of the whole film."""
    import numpy as np
    import torch

    import fourdgs as fd
    from fourdgs.drive import speech_like
    from fourdgs.model import render_bytes
    from fourdgs.talking import played, swing, talk

    model, count = model.to(device), FRAMES[device]
    chunk = 32 if device == "cuda" else 8
    track = speech_like(count / 25, fps=25)
    acting = played(model, track, np.arange(count) / 25)
    cameras = swing(model, size=size).lasting(count / 25, 25).cameras().with_times(np.linspace(0, 1, count))
    times = cameras.times.to(device)

    @torch.no_grad()
    def pose() -> None:
        for part in times.split(chunk):
            acting.motion.pose(acting.gaussians, part)

    def draw() -> None:
        for _ in render_bytes(acting, cameras):
            pass

    with tempfile.TemporaryDirectory() as folder:

        def film() -> None:
            with contextlib.suppress(fd.MissingDependency):
                talk(model, track, Path(folder) / "a.mp4", fps=25, size=size, progress=False, again=True)

        return {name: rate(work, count, device) for name, work in (("posed", pose), ("drawn", draw), ("film", film))}


def panel(model, size: int, coarse: int, device: str, seconds: float = 2.0) -> dict[str, float]:
    """Pictures a second of the widget; NaN where ipywidgets is absent."""
    import fourdgs as fd

    try:
        from fourdgs.drive_widget import drive_panel
    except fd.MissingDependency:
        return {"moving": float("nan"), "rest": float("nan")}

    shown = drive_panel(model.to(device), size=size, coarse=coarse)
    seen: list[float] = []
    shown.image.observe(lambda _: seen.append(time.perf_counter()), "value")
    jaw, turn = shown.handles["jaw open"], 0

    def follow(pause: float, wait: bool) -> float:
        nonlocal turn
        seen.clear()
        begun = time.perf_counter()
        while time.perf_counter() < begun + seconds:
            turn += 1
            value = abs(turn % 40 - 20) / 20
            if wait:
                shown.pose({"jawOpen": value, "headYaw": turn % 40 - 20})
                shown.settle()
            else:
                jaw.value = value
                time.sleep(pause)
        return len([moment for moment in seen if moment < begun + seconds]) / seconds

    follow(0.005, False)
    result = {"moving": follow(0.005, False)}
    shown.settle()
    result["rest"] = follow(0.0, True)
    shown.close()
    return result


def main() -> None:
    """Print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="", help="the folder of a finished run of the motion rig")
    parser.add_argument("--rig", choices=("anny", "puppet"), default="anny")
    parser.add_argument("--gaussians", type=int, default=12_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = scene(options)
    rig = model.motion.rig
    print(
        f"{len(model.gaussians)} Gaussians, {len(rig.rest)} vertices, {len(rig.controls)} controls; {options.threads} "
        f"threads; frames a second, medians of {ROUNDS}\n"
    )
    print("| device | size | posed | drawn | film | panel, moving | the same, half size | at rest |")
    print("|---|---|---|---|---|---|---|---|")
    for device, size in (("cpu", 256), ("cuda", 256), ("cuda", 800)):
        if device == "cuda" and not torch.cuda.is_available():
            continue
        made = films(model, size, device)
        whole, half = panel(model, size, 1, device), panel(model, size, 2, device)
        words = [made["posed"], made["drawn"], made["film"], whole["moving"], half["moving"], whole["rest"]]
        print(f"| {device} | {size} | {' | '.join(f'{value:.0f}' for value in words)} |", flush=True)


if __name__ == "__main__":
    main()
