"""Parameters of the inputs: the dense model, the training data, the probes."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from interlace.params.section import Section, Seed

Rating = Literal["relevance", "image_correspondence", "visual_dependency", "formatting"]
FINEVISION = "HuggingFaceM4/FineVision"  # on the hub
RATINGS: tuple[Rating, ...] = get_args(Rating)  # FineVision's, of every turn


class Model(Section):
    """The dense model."""

    id: str = Field(description="hub id (org/name) or local folder of the dense model")
    revision: str | None = Field(None, description="hub revision; none: the newest, then pinned")
    trust_remote_code: bool = Field(False, description="let the model's own Python code run")


class Data(Section):
    """The fine-tuning set and the calibration set drawn from it."""

    id: str = Field(
        description="hub id, or local Parquet file or folder, in the schema of FineVision, ChartQA,"
        " TextVQA or ScienceQA"
    )
    revision: str | None = Field(None, description="hub revision; none: the newest, then pinned")
    subsets: tuple[str, ...] = Field((), description="subsets to draw from, by name; none: all")
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="factors on data.fraction by subset; one becomes a share of 1 at most"
    )
    fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"share of every subset's rows to draw; none: as INTERLACE drew, 0.01 of"
        f" {FINEVISION} and all of any other data set",
    )
    group_share: float = Field(
        0.6,
        gt=0,
        le=1,
        description="share of the rows of a row group to draw before another group is read: bytes"
        " read over bytes kept come to about 1 / share, and less of it spreads the draw wider",
    )
    calibration_fraction: float = Field(
        0.1, gt=0, le=1, description="share of the training rows to calibrate on (INTERLACE: 0.1)"
    )
    max_images: int = Field(3, ge=0, description="rows with more images are skipped, images")
    max_turns: int = Field(3, ge=1, description="turns after this one are cut off, user turns")
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        le=89_478_485,
        description="rows with a larger image are skipped, pixels; Pillow's own bound is the most",
    )
    min_ratings: dict[Rating, int] = Field(
        {}, description="rows rated lower are skipped, by kind of rating; FineVision: 1 to 5"
    )
    workers: int = Field(
        8, ge=1, le=1024, description="subsets to read at a time; does not change what is drawn"
    )

    @property
    def share(self) -> float:
        """Share of every subset's rows to draw, before weights: 0 to 1."""
        if self.fraction is not None:
            return self.fraction
        return 0.01 if self.id == FINEVISION else 1.0


class Probes(Section):
    """Domain probes: instructions paired with images (arXiv 2603.20275, section 3)."""

    prompts: str = Field(
        "data/probes.yaml", description="YAML file of the tasks: name, domain and instruction"
    )
    per_task: int = Field(
        0, ge=0, description="probes of each task, samples; 0: no probes (published: 1000)"
    )
    math_sources: tuple[str, ...] = Field(
        (), description="sources of the training set whose images the math tasks are asked about"
    )
    nonmath_sources: tuple[str, ...] = Field(
        (), description="sources of the training set whose images the other tasks are asked about"
    )


class SampleParams(Section):
    """`sample`: draw the training and calibration sets."""

    seed: Seed
    data: Data
    probes: Probes = Probes()
