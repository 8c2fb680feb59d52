"""What a Stage I build is told: sources, questions, limits, splits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, StringConstraints, model_validator

from blm.curate.corpus.download import Download, Downloads
from blm.curate.corpus.licence import Licences
from blm.curate.corpus.mixture import Mixture
from blm.curate.corpus.quality import Quality
from blm.curate.corpus.text_embeddings import Embeddings
from blm.curate.engine import EngineName
from blm.curate.episodes.config import Fractions
from blm.curate.shards import DEFAULT_SHARD_BYTES
from blm.schemas.corpus import Space, TaskFamily
from blm.schemas.yaml_model import FrozenModel, read_yaml, validate

UNKNOWN_LICENCE = "unknown"
LanguageCode = Annotated[str, StringConstraints(pattern="^[a-z]{2,3}$")]


class Source(FrozenModel):
    """Where conversations come from. In `corpus.yaml` and on the command line it may be given as 'KIND:PATH'."""

    kind: str = Field(
        description="lerobot, llava, parquet, … (docs/corpus.md), or one of an installed package"
    )
    path: Path
    name: str | None = Field(default=None, description="name in the build; default: the file's or folder's")
    licence: str | None = Field(default=None, description="default: the build's `licence`")
    questions_per_episode: int | None = Field(default=None, ge=1, description="default: the build's")
    camera: str | None = Field(
        default=None, description="lerobot: default: the first camera that stands still"
    )
    media_root: Path | None = Field(
        default=None, description="folder that image paths start from; default: the file's folder"
    )
    space: Space = Field(default="digital", description="what its conversations are about")
    task_family: TaskFamily = Field(default="general", description="what they train, where rows do not say")
    options: dict[str, Any] = Field(default={}, description="settings of the kind")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        kind, separator, path = value.partition(":")
        if not (kind and separator and path):
            raise ValueError("a source is KIND:PATH, for example lerobot:datasets/pushes")
        return {"kind": kind, "path": path}


class Limits(FrozenModel):
    """What is too small or too large to train on."""

    min_side: int = Field(default=16, ge=1, description="pixels")
    max_side: int = Field(default=8192, ge=1, description="pixels")
    max_pixels: int = Field(default=50_000_000, ge=1, description="of an image, in all")
    max_media_bytes: int = Field(default=32 * 1024 * 1024, ge=1, description="per image")
    max_media: int = Field(default=16, ge=0, description="images per conversation")
    max_characters: int = Field(default=100_000, ge=1, description="of text per conversation")
    max_row_bytes: int = Field(default=8 * 1024 * 1024, ge=1, description="of a line or list element of JSON")


class NearDuplicates(FrozenModel):
    """Which conversations are too much alike to keep all; the first in order stays."""

    text: float | None = Field(
        default=0.7,
        ge=0.5,
        le=1,
        description="Jaccard similarity of 5-word shingles from which texts about the same media count; null: off",
    )
    embeddings: Embeddings | None = Field(
        default=None,
        description="a sentence encoder: texts that say the same in other words count too; null: off",
    )
    images: Literal["keep", "same_text", "any_text"] = Field(
        default="keep",
        description="images that look alike: keep all, drop those whose text is a near-duplicate too, or all but one",
    )
    image_sources: tuple[str, ...] | None = Field(
        default=None,
        description="sources whose images are compared (frames of one camera look alike); null: all",
    )
    mirrored: bool = Field(default=False, description="mirror images look alike")


class Benchmark(FrozenModel):
    """Questions that must not be trained on. In `corpus.yaml` it may be given as the path alone."""

    path: Path = Field(description="JSON, JSON lines, Parquet, CSV, TSV, or plain text with an item per line")
    name: str | None = Field(default=None, description="default: the file's name")
    question: str | None = Field(default=None, description="its field; default: the first known one")
    answer: str | None = Field(default=None, description="its field; default: the first known one")
    image: str | None = Field(default=None, description="its field; default: the first known one; '': none")
    images: Literal["alike", "equal"] = Field(
        default="alike",
        description="what counts as its image: one that looks alike, or equal bytes (for frames of one fixed camera)",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value


class SourceConfig(FrozenModel):
    """What a source function is given besides its path: one `Source` with the build's defaults filled in."""

    name: str
    licence: str
    seed: int = 0
    questions_per_episode: int = 12
    choice_share: float = 0.5
    camera: str | None = None
    jpeg_quality: int = 92
    video_frames: int = 8
    media_root: Path | None = None
    space: Space = "digital"
    task_family: TaskFamily = "general"
    limits: Limits = Limits()
    options: dict[str, Any] = {}
    _downloads: Downloads | None = PrivateAttr(default=None)

    @property
    def downloads(self) -> Downloads | None:
        """Where to fetch media from the web, if the build allows it."""
        return self._downloads

    def with_downloads(self, downloads: Downloads | None) -> SourceConfig:
        """The same settings, for a build that fetches media there."""
        given = self.model_copy()
        given._downloads = downloads
        return given


class CorpusConfig(FrozenModel):
    """A Stage I build."""

    sources: tuple[Source, ...] = Field(min_length=1)
    output: Path
    seed: int = 0
    questions_per_episode: int = Field(default=12, ge=1, description="asked about each recorded episode")
    choice_share: float = Field(
        default=0.5, ge=0, le=1, description="of generated questions that offer lettered options"
    )
    fractions: Fractions = Fractions()
    licence: str = Field(default=UNKNOWN_LICENCE, description="of sources that do not name theirs")
    jpeg_quality: int = Field(default=92, ge=1, le=100, description="of images taken from recorded video")
    video_frames: int = Field(default=8, ge=1, le=64, description="shown of a video, at equal distances")
    limits: Limits = Limits()
    allow_download: bool = Field(
        default=False,
        description="fetch media that rows name by https address; otherwise such rows are dropped",
    )
    download: Download = Download()
    licences: Licences = Licences()
    quality: Quality = Quality()
    languages: tuple[LanguageCode, ...] = Field(
        default=(),
        description="ISO 639-1 codes, e.g. en; conversations in others are left out; none: any language",
    )
    mask_personal_data: bool = Field(
        default=True, description="e-mail, phone and public IP numbers, and keys"
    )
    near_duplicates: NearDuplicates = NearDuplicates()
    benchmarks: tuple[Benchmark, ...] = Field(
        default=(), description="what is found in these files is left out of the corpus"
    )
    mixture: Mixture = Mixture()
    shard_bytes: int = Field(default=DEFAULT_SHARD_BYTES, ge=10240)
    parquet: bool = Field(
        default=False, description="also write Parquet files with the images in them, for `datasets`"
    )
    engine: EngineName = Field(default="local", description="where the work runs; no effect on the result")
    ray_address: str | None = Field(
        default=None, description="cluster for the engine 'ray'; default: RAY_ADDRESS, else one started here"
    )
    workers: int = Field(
        default=1,
        ge=1,
        description="processes of the engine 'local' that check conversations; no effect on the result",
    )
    memory: float = Field(
        default=0.5,
        ge=0.05,
        description="GB that comparing texts may use; beyond, it works on disk; no effect on the result",
    )
    cache: bool = Field(
        default=True,
        description="keep what was read of each source for the next build, in `.cache` of the output folder",
    )
    overwrite: bool = Field(default=False, description="replace another build in the output folder")

    def for_source(self, source: Source, name: str) -> SourceConfig:
        """What the function of a source, called `name` in this build, is given."""
        return SourceConfig(
            name=name,
            licence=source.licence or self.licence,
            seed=self.seed,
            questions_per_episode=source.questions_per_episode or self.questions_per_episode,
            choice_share=self.choice_share,
            camera=source.camera,
            jpeg_quality=self.jpeg_quality,
            video_frames=self.video_frames,
            media_root=source.media_root,
            space=source.space,
            task_family=source.task_family,
            limits=self.limits,
            options=source.options,
        )

    def build_settings(self) -> dict[str, Any]:
        """What decides the build's content, JSON-ready: not where it goes, nor where the work runs."""
        where = {"output", "memory", "cache", "overwrite", "engine", "ray_address", "workers"}
        how = {"cache": True, "timeout_s": True} if self.allow_download else True
        return self.model_dump(mode="json", exclude=dict.fromkeys(where, True) | {"download": how})


def read_corpus_config(path: Path, **changes: Any) -> CorpusConfig:
    """Read `corpus.yaml`; `changes` (from the command line) replace its keys.

    Raises:
        ConfigError: the file or a value is wrong; names the file and the key.
    """
    return validate(CorpusConfig, {**read_yaml(path), **changes}, str(path))
