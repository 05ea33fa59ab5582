"""Pictures of a mesh, still or moving, from any cameras: RGBA with straight alpha, drawn off-screen.

Two engines draw: pyvista (any machine with an OpenGL, software ones too) and, where it is installed, nvdiffrast (an
NVIDIA GPU; see `nvdiff`). What they share is in `Stage`.

The projection is the camera's own K (any focal lengths, any principal point), handed to OpenGL as an explicit matrix.
Lights stand still in the world and shade the vertices, so a surface point has one colour from everywhere, which is
what a reconstruction assumes. Pictures are drawn several times too large and averaged with premultiplied alpha.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np

from ..cameras import Cameras
from ..errors import InputError, MissingDependency
from .meshes import GREY, Mesh, load_mesh, weld_places
from .pieces import vertex_normals

LIGHTS = (
    ((-0.50, 0.70, 0.85), 0.50),
    ((0.95, 0.25, 0.55), 0.22),
    ((0.15, 0.55, -1.0), 0.30),
)
"""Where each light comes from (world) and how strong it is; none follows the camera."""

AMBIENT = 0.40

MIPMAPS_FROM = 16
"""How many texels of a texture a sample of the picture may skip before mipmaps pay. Measured inside the avatar against
1024 samples a pixel, without mipmaps and with (anisotropic ones), dB: 49.2 and 46.0 at 4 texels a sample, 45.1 and 42.7
at 8, 39.8 and 39.9 at 16. The mean over samples is filter enough until then, and drawing takes half the time."""

_GL_REMEDY = "install a software OpenGL, for example: apt install libegl1 libgl1 libgl1-mesa-dri"
_PROBE = (
    "import pyvista as pv, numpy as np\n"
    "p = pv.Plotter(off_screen=True, window_size=(16, 16)); p.add_mesh(pv.Sphere())\n"
    "print('drawn', int(np.ptp(p.screenshot(return_img=True)) > 0))\n"
)
_probed: set[str] = set()


def render_mesh(
    mesh: Any,
    cameras: Cameras,
    *,
    motion: Callable[[float | None], np.ndarray] | None = None,
    supersample: int | None = None,
    shading: bool = True,
    engine: str = "pyvista",
    mipmaps: bool | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Draw a mesh from each camera, at that camera's time.

    Args:
        mesh: see `load_mesh`. cameras: C cameras with one picture size; a NaN time draws the mesh at rest.
        motion: time -> [V, 3]; see `Mesh`.
        supersample: a pixel is the mean of ``supersample`` squared samples; None: 16 samples up to 256 pixels across,
            9 for larger pictures.
        shading: False draws the plain colours.
        engine: "pyvista", "nvdiffrast", or "auto" (see `choose_engine`).
        mipmaps: whether textures are filtered before they are sampled; None: where one is very large (`MIPMAPS_FROM`).
        progress: show a bar.

    Returns:
        [C, H, W, 4] uint8: colours straight (not premultiplied), then alpha.

    Raises:
        InputError: the mesh cannot be used, or the cameras' sizes differ.
        MissingDependency: the engine's package, OpenGL or GPU is not on the machine.
    """
    pictures = np.empty((len(cameras), cameras.height, cameras.width, 4), np.uint8)
    for index, picture in enumerate(
        iterate_pictures(
            mesh,
            cameras,
            motion=motion,
            supersample=supersample,
            shading=shading,
            engine=engine,
            mipmaps=mipmaps,
            progress=progress,
        )  # fmt: skip
    ):
        pictures[index] = picture
    return pictures


def iterate_pictures(
    mesh: Any,
    cameras: Cameras,
    *,
    motion: Callable[[float | None], np.ndarray] | None = None,
    supersample: int | None = None,
    shading: bool = True,
    engine: str = "pyvista",
    mipmaps: bool | None = None,
    progress: bool = True,
    description: str = "pictures",
    done: int = 0,
) -> Iterator[np.ndarray]:
    """`render_mesh`, one [H, W, 4] picture at a time, for those that write each one away.

    Args:
        description, done: the bar's words, and how many pictures an earlier run did that the bar shall count.
    """
    from tqdm.auto import tqdm

    mesh = load_mesh(mesh, motion)
    supersample = choose_supersample(supersample, cameras)
    if mipmaps is None:
        largest = max([0, *(max(texture.shape) for _, texture in mesh.looks() if texture is not None)])
        mipmaps = largest > MIPMAPS_FROM * supersample * max(cameras.width, cameras.height)
    maker: type[Stage] = _Window
    if choose_engine(engine) == "nvdiffrast":
        from .nvdiff import NvdiffStage as maker
    stage = maker(mesh, cameras.width, cameras.height, supersample, shading, mipmaps)
    viewmats = cameras.viewmats.detach().cpu().double().numpy()
    Ks = cameras.Ks.detach().cpu().double().numpy()
    times = cameras.times.detach().cpu().double().numpy()
    try:
        with tqdm(
            total=done + len(cameras), initial=done, desc=description, unit="picture", disable=not progress, leave=False
        ) as bar:
            for index in range(len(cameras)):
                stage.pose(None if np.isnan(times[index]) else float(times[index]))
                yield stage.shoot(viewmats[index], Ks[index])
                bar.update()
    finally:
        stage.close()


def choose_supersample(supersample: int | None, cameras: Cameras) -> int:
    """How many samples a pixel has each way; see `render_mesh`.

    Raises:
        InputError: less than one.
    """
    if supersample is None:
        return 4 if max(cameras.width, cameras.height) <= 256 else 3
    if int(supersample) < 1:
        raise InputError(f"is {supersample}, must be at least 1", field="supersample")
    return int(supersample)


def choose_engine(engine: str) -> str:
    """The engine that will draw; "auto" is nvdiffrast where it and a CUDA device are there, else pyvista.

    Raises:
        InputError: no such engine. MissingDependency: it is not on the machine; the text names what to install.
    """
    from .nvdiff import has_nvdiffrast, require_nvdiffrast

    if engine not in ("auto", "pyvista", "nvdiffrast"):
        raise InputError(f"is {engine!r}, must be auto, pyvista or nvdiffrast", field="engine")
    if engine == "auto":
        engine = "nvdiffrast" if has_nvdiffrast() else "pyvista"
    (require_nvdiffrast if engine == "nvdiffrast" else require_gl)()
    return engine


def require_gl() -> None:
    """Make sure that pyvista can draw off-screen here, without risking this process.

    VTK ends the whole process where it finds no OpenGL, so the first try is made in a child; the outcome is
    remembered for this process and its environment.

    Raises:
        MissingDependency: it cannot; the text names the package to install.
    """
    if importlib.util.find_spec("pyvista") is None:
        raise MissingDependency("drawing a mesh needs the package pyvista: pip install pyvista")
    key = "|".join(os.environ.get(name, "") for name in ("DISPLAY", "LD_LIBRARY_PATH", "__EGL_VENDOR_LIBRARY_DIRS"))
    if key in _probed:
        return
    if sys.platform.startswith("linux") and not any(map(_loads, ("libEGL.so.1", "libGL.so.1", "libOSMesa.so.8"))):
        raise MissingDependency(f"no OpenGL library is on this machine, so no mesh can be drawn: {_GL_REMEDY}")
    try:
        child = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingDependency(f"the trial picture of pyvista did not come back ({error}): {_GL_REMEDY}") from error
    if child.returncode != 0 or "drawn 1" not in child.stdout:
        lines = [line for line in child.stderr.splitlines() if "Error" in line]
        crash = f"it crashed with signal {-child.returncode}" if child.returncode < 0 else "no picture"
        reason = lines[-1] if lines else crash
        raise MissingDependency(f"pyvista cannot draw off-screen on this machine ({reason.strip()}): {_GL_REMEDY}")
    _probed.add(key)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


class Stage:
    """A mesh, posed, lit and seen from cameras; what all engines share. An engine adds `_move`, `_draw`, `close`."""

    def __init__(self, mesh: Mesh, width: int, height: int, supersample: int, shading: bool, mipmaps: bool):
        self.mesh, self.width, self.height, self.supersample = mesh, width, height, supersample
        self.weld = mesh.weld if mesh.weld is not None else weld_places(mesh.points)
        self.time: float | None | str = "unset"
        self.shading, self.mipmaps = shading, mipmaps
        self.colors = np.full((len(mesh.points), 3), 255, np.uint8)
        if mesh.colors is not None:
            self.colors[:] = mesh.colors
        elif not mesh.is_textured:
            self.colors[:] = GREY

    def pose(self, time: float | None) -> None:
        """Move the mesh's vertices to where they are at a time, and light them there.

        Raises:
            InputError: the mesh's motion gives other than its [V, 3] vertices.
        """
        if time == self.time:
            return
        points = np.asarray(self.mesh.vertices(time), np.float32)
        if points.shape != self.mesh.points.shape:
            raise InputError(
                f"gave vertices of shape {list(points.shape)} at time {time}, must be {list(self.mesh.points.shape)}",
                field="motion",
            )
        self._move(points, lit_colors(self.colors, points, self.mesh.faces, self.weld) if self.shading else self.colors)
        low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
        self.middle, self.radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2 + 1e-9
        self.time = time

    def shoot(self, viewmat: np.ndarray, K: np.ndarray) -> np.ndarray:
        """One [H, W, 4] uint8 picture, from a [4, 4] world-to-camera matrix (OpenCV axes) and a [3, 3] K."""
        depth = float(viewmat[2, :3] @ self.middle + viewmat[2, 3])
        far = max(depth + self.radius, 1e-3)
        near = max(depth - self.radius, far * 1e-3)
        return self._draw(viewmat, _projection(K, self.width, self.height, near, far), near, far)

    def _move(self, points: np.ndarray, colors: np.ndarray) -> None:
        """Take over vertices [V, 3] float32 and their colours [V, 3] uint8, which multiply the textures."""
        raise NotImplementedError

    def _draw(self, viewmat: np.ndarray, projection: np.ndarray, near: float, far: float) -> np.ndarray:
        """[H, W, 4] uint8, from `shoot`'s matrices."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the engine holds."""


class _Window(Stage):
    """pyvista's: one plotter, reused for all pictures."""

    def __init__(self, mesh: Mesh, width: int, height: int, supersample: int, shading: bool, mipmaps: bool):
        super().__init__(mesh, width, height, supersample, shading, mipmaps)
        import pyvista as pv
        from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

        self.buffer = vtkUnsignedCharArray()
        size = (width * supersample, height * supersample)
        with _quiet():
            self.plotter = pv.Plotter(off_screen=True, window_size=size, lighting="none")
        # The averaging below is the anti-aliasing: hardware samples on top would cost ten times more.
        self.plotter.ren_win.SetMultiSamples(0)
        self.plotter.ren_win.SetAlphaBitPlanes(1)
        self.plotter.set_background((0.0, 0.0, 0.0))
        self.plotter.renderer.SetBackgroundAlpha(0.0)
        self.parts: list[tuple[Any, Any]] = []  # each with the rows of the mesh's vertices that it has
        looks = mesh.looks()
        for faces, picture in looks:
            rows: Any = slice(None)
            if len(looks) > 1:
                rows, faces = np.unique(faces, return_inverse=True)
                faces = faces.reshape(-1, 3)
            data = pv.PolyData.from_regular_faces(np.array(mesh.points[rows], np.float32), faces)
            data.point_data["colors"] = self.colors[rows].copy()
            texture = None
            if picture is not None:
                data.active_texture_coordinates = np.asarray(mesh.uv[rows], np.float32)
                texture = pv.Texture(np.ascontiguousarray(picture))
                texture.SetInterpolate(True)
                texture.SetMipmap(mipmaps)
            # The window does not light: it interpolates the colours of `pose` and multiplies them with the texture.
            self.plotter.add_mesh(
                data, scalars="colors", rgb=True, texture=texture, lighting=False, show_scalar_bar=False,
                copy_mesh=False,
            )  # fmt: skip
            self.parts.append((rows, data))
        self.plotter.camera.SetUseExplicitProjectionTransformMatrix(True)

    def _move(self, points: np.ndarray, colors: np.ndarray) -> None:
        for rows, data in self.parts:
            data.points[:] = points[rows]
            data.point_data["colors"][:] = colors[rows]
            data.point_data.GetArray("colors").Modified()
            data.GetPoints().Modified()
            data.Modified()

    def _draw(self, viewmat: np.ndarray, projection: np.ndarray, near: float, far: float) -> np.ndarray:
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonMath import vtkMatrix4x4

        rotation, shift = viewmat[:3, :3], viewmat[:3, 3]
        position = -np.linalg.solve(rotation, shift)
        camera = self.plotter.camera
        camera.SetPosition(*position)
        camera.SetFocalPoint(*(position + rotation[2]))
        camera.SetViewUp(*-rotation[1])
        camera.SetClippingRange(near, far)
        matrix = vtkMatrix4x4()
        matrix.DeepCopy(projection.ravel())
        camera.SetExplicitProjectionTransformMatrix(matrix)
        window, scale = self.plotter.ren_win, self.supersample
        with _quiet():
            window.Render()
        window.GetRGBACharPixelData(0, 0, self.width * scale - 1, self.height * scale - 1, 0, self.buffer)
        large = vtk_to_numpy(self.buffer).reshape(self.height * scale, self.width * scale, 4)
        return _average(large, scale)

    def close(self) -> None:
        self.plotter.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep VTK from telling on stderr that there is no X server before it turns to EGL."""
    from vtkmodules.vtkCommonCore import vtkLogger

    before = vtkLogger.GetCurrentVerbosityCutoff()
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        yield
    finally:
        vtkLogger.SetStderrVerbosity(before)


def lit_colors(colors: np.ndarray, points: np.ndarray, faces: np.ndarray, weld: np.ndarray) -> np.ndarray:
    """[V, 3] uint8: vertex colours [V, 3] uint8 under `LIGHTS`, for vertices [V, 3] and triangles [F, 3]."""
    normals = vertex_normals(points.astype(np.float64), faces, weld)
    return np.rint(colors * _light(normals)[:, None]).astype(np.uint8)


def _light(normals: np.ndarray) -> np.ndarray:
    """[V] in [0, 1] for unit normals [V, 3]: ambient light and soft (wrapped) diffuse light."""
    total = np.full(len(normals), AMBIENT)
    for direction, strength in LIGHTS:
        toward = np.asarray(direction) / np.linalg.norm(direction)
        total += strength * np.clip(0.75 * (normals @ toward) + 0.25, 0, None)
    return np.minimum(total, 1.0)


def _projection(K: np.ndarray, width: int, height: int, near: float, far: float) -> np.ndarray:
    """The OpenGL clip matrix [4, 4] of a pinhole K, for OpenGL camera axes (y up, z backward).

    From u = fx x / z + s y / z + cx and x_ndc = 2 u / width - 1, likewise for v, which grows downwards.
    """
    matrix = np.zeros((4, 4))
    matrix[0, 0] = 2 * K[0, 0] / width
    matrix[0, 1] = -2 * K[0, 1] / width
    matrix[0, 2] = 1 - 2 * K[0, 2] / width
    matrix[1, 1] = 2 * K[1, 1] / height
    matrix[1, 2] = 2 * K[1, 2] / height - 1
    matrix[2, 2] = -(far + near) / (far - near)
    matrix[2, 3] = -2 * far * near / (far - near)
    matrix[3, 2] = -1
    return matrix


@numba.njit(cache=True)
def _average(large, scale):
    """[H s, W s, 4] samples, bottom row first, each opaque or empty -> [H, W, 4] straight alpha, top row first."""
    height, width = large.shape[0] // scale, large.shape[1] // scale
    result = np.zeros((height, width, 4), np.uint8)
    total = scale * scale
    for row in range(height):
        for column in range(width):
            red = green = blue = alpha = 0
            for y in range((height - 1 - row) * scale, (height - row) * scale):
                for x in range(column * scale, (column + 1) * scale):
                    if large[y, x, 3] > 0:
                        red += large[y, x, 0]
                        green += large[y, x, 1]
                        blue += large[y, x, 2]
                        alpha += 1
            if alpha > 0:
                result[row, column, 0] = (2 * red + alpha) // (2 * alpha)
                result[row, column, 1] = (2 * green + alpha) // (2 * alpha)
                result[row, column, 2] = (2 * blue + alpha) // (2 * alpha)
                result[row, column, 3] = (2 * 255 * alpha + total) // (2 * total)
    return result
