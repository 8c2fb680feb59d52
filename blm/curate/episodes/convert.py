"""LeRobot v2.1 datasets become v3 ones through LeRobot's own converter, in another place than the input."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

from blm.schemas.errors import DatasetError

CONVERTED_VERSION = "v2.1"


def convert_dataset(root: Path, target: Path) -> None:
    """Write the v3 form of the v2.1 dataset `root` to the new folder `target`.

    LeRobot's command works in place and can push to the Hub; its steps, called one by one, only read the input.

    Raises:
        DatasetError: LeRobot cannot convert it.
    """
    from lerobot.scripts import convert_dataset_v21_to_v30 as lerobot_converter

    data_mb = lerobot_converter.DEFAULT_DATA_FILE_SIZE_IN_MB
    video_mb = lerobot_converter.DEFAULT_VIDEO_FILE_SIZE_IN_MB
    target.mkdir(parents=True)
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages), _quiet_logging():
            lerobot_converter.convert_info(root, target, data_mb, video_mb)
            lerobot_converter.convert_tasks(root, target)
            episodes = lerobot_converter.convert_data(root, target, data_mb)
            videos = lerobot_converter.convert_videos(root, target, video_mb)
            lerobot_converter.convert_episodes_metadata(root, target, episodes, videos)
    except Exception as error:  # of many libraries, on whatever is wrong with the dataset
        raise DatasetError(
            f"{root} is a {CONVERTED_VERSION} dataset that LeRobot's converter cannot convert "
            f"({type(error).__name__}: {error}).",
            "Mend it, or convert it with: python -m lerobot.scripts.convert_dataset_v21_to_v30",
        ) from error


@contextlib.contextmanager
def _quiet_logging():
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
