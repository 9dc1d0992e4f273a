"""The first episode of an evaluation as a video."""
from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import imageio
import numpy as np
from imageio.core.format import Format

from ding_cawr.environments import Environment
from ding_cawr.evaluation.episodes import Evaluation, first_start
from ding_cawr.files import new_file, unfinished


class Camera:
    """Films into a new .mp4 file. It is made before the evaluation and used after it: the scores need no pictures, and
    are not to be lost where pictures cannot be made."""

    def __init__(self, path: str | Path) -> None:
        """Check the path.

        Raises:
            ValueError, FileExistsError, FileNotFoundError: it cannot be written to.
        """
        self._path = new_file(path, ['.mp4'])
        self._gl = os.environ.get('MUJOCO_GL')
        self._import_error = self._import_mujoco()

    def film(self, evaluation: Evaluation) -> Path:
        """Film the first episode, from its start state and with its actions, at the speed of the environment; return
        the file.

        Raises:
            OSError: nothing can be rendered on this machine, or imageio cannot write videos, or the disk is full.
        """
        self._check_plugin()
        with contextlib.ExitStack() as stack:
            with self._explained(evaluation.env_id):
                env = Environment(
                    evaluation.env_id, **evaluation.settings, render_mode='rgb_array',
                    discrete=evaluation.actions.ndim == 1
                )
                stack.callback(env.close)
                env.reset(first_start(evaluation.seed, 0))
                picture = env.picture()
            temporary = stack.enter_context(unfinished(self._path))
            # imageio's own context leaves ffmpeg running, and writing, where an error ends it.
            with contextlib.closing(imageio.get_writer(temporary, fps=env.pictures_a_second)) as writer:
                self._append(writer, picture)
                for action in evaluation.actions:
                    env.step(action)
                    self._append(writer, env.picture())
            self._check_length(temporary, 1 + len(evaluation.actions))
        return self._path

    def _append(self, writer: Format.Writer, picture: np.ndarray) -> None:
        """Give ffmpeg a picture; raise an OSError with one sentence if it has ended before."""
        try:
            writer.append_data(picture)
        except OSError as error:  # its message holds ffmpeg's whole command line
            reason = str(error).partition('\n')[0]
            raise OSError(f'no video was written: ffmpeg ended too early ({reason}); is the disk full?') from None

    def _check_plugin(self) -> None:
        try:
            from imageio_ffmpeg import get_ffmpeg_exe
            get_ffmpeg_exe()
        except (ImportError, RuntimeError) as error:
            raise OSError(
                f"no video was written: imageio cannot write one ({error}); pip install 'ding_cawr[video]'"
            ) from None

    def _check_length(self, file: Path, pictures: int) -> None:
        """Raise an OSError where pictures are missing from the file; imageio does not say how ffmpeg ended."""
        from imageio_ffmpeg import count_frames_and_secs
        try:
            found, _ = count_frames_and_secs(file)
        except RuntimeError:
            found = 'none'
        if found != pictures:
            raise OSError(f'no video was written: of {pictures} pictures {found} got into the file; is the disk full?')

    def _import_mujoco(self) -> Exception | None:
        """Import MuJoCo; return the error if $MUJOCO_GL names a library that is missing, and turn pictures off."""
        try:
            import mujoco  # noqa: F401
        except Exception as error:  # whatever PyOpenGL stumbles over
            os.environ['MUJOCO_GL'] = 'disable'
            return error
        return None

    @contextlib.contextmanager
    def _explained(self, env_id: str) -> Iterator[None]:
        """Raise any error of the libraries below gymnasium as one OSError with one sentence."""
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                if self._import_error:
                    raise self._import_error
                yield
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # the destructors of half-made viewers fail, here unheard
            setting = f'MUJOCO_GL={self._gl}' if self._gl else 'MUJOCO_GL not set'
            raise OSError(
                f'no video was written: {env_id} cannot be rendered here with {setting} ({type(error).__name__}: '
                f'{str(error)[:200]}); try MUJOCO_GL=egl, which needs libEGL, or MUJOCO_GL=osmesa, which needs '
                'libOSMesa'
            ) from None
        finally:
            sys.unraisablehook = hook
