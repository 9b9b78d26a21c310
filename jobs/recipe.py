"""The schema of what a run computes: the sections of a config that change a result, and the specification of one run.

Every field is documented where it stands, since `launch schema` shows these texts in the user's editor."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.contract import ImagePin
from jobs.fields import Commit, Fraction, Positive, Seed, Sha256


class Section(BaseModel):
    """Frozen, closed to unknown keys, strict about types: `epochs: "3"` and `seeds: [1.0]` are mistakes, not values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Architecture(Section):
    """A transformers model written out: built from its configuration, with weights drawn from the run's seed."""

    type: str
    """The `model_type` of transformers: gpt2, llama, qwen2 ..."""
    settings: dict[str, Any] = {}
    """The fields of that configuration class, e.g. `n_embd: 64`. Vocabulary size and special tokens come from the data."""


class Pretrained(Section):
    """Weights that exist already."""

    id: str | None = None
    """A hub id, `organisation/name`. Needs `revision`."""
    revision: Commit | None = None
    """The hub commit of `id`."""
    path: str | None = None
    """A folder in the format of `save_pretrained`, relative to the project's root. Needs `sha256`."""
    sha256: dict[str, Sha256] | None = None
    """For `path`: the hash of every file in it that could be read, by file name. One that is not listed is refused."""

    @model_validator(mode="after")
    def _one_source(self) -> "Pretrained":
        if (self.id is None) == (self.path is None):
            raise ValueError("give either id (with revision) or path (with sha256)")
        if self.id is not None and self.revision is None:
            raise ValueError("a hub id needs a revision: the full commit hash of the model's repository")
        if self.path is not None and not self.sha256:
            raise ValueError("a path needs sha256: {file name: hash}; `sha256sum` prints them")
        return self


class Model(Section):
    """What is trained."""

    architecture: Architecture | None = None
    """Written out here, weights drawn from the seed. Exactly one of architecture and pretrained."""
    pretrained: Pretrained | None = None
    """Weights that exist already. Exactly one of architecture and pretrained."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if (self.architecture is None) == (self.pretrained is None):
            raise ValueError("give exactly one of architecture and pretrained")
        return self


class Lora(Section):
    """Low-rank adapters of peft. Only they, and `save_modules`, are trained and saved."""

    r: Positive
    """Rank."""
    alpha: Annotated[float, Field(gt=0)]
    """The update is scaled by alpha / r."""
    dropout: Fraction = 0.0
    """Dropout before the adapter."""
    target_modules: Annotated[list[str], Field(min_length=1)]
    """Names of the modules that get an adapter: whole, or their last part. One that matches nothing is refused."""
    save_modules: list[str] = []
    """Modules trained in full beside the adapters (peft: modules_to_save), e.g. embeddings of a fresh vocabulary."""


class Builtin(Section):
    """Data that the project makes itself, deterministically. It does not depend on the run's seed."""

    name: Literal["arithmetic"]
    """arithmetic: additions as text, `07+34=041`; the accuracy counts answers that are right to the last digit."""
    digits: Annotated[int, Field(ge=1, le=4)] = 2
    """Digits of a summand, zero-padded. With 1, 2, 3, 4 there are 55, 5050, 500500, 50005000 additions; a+b and b+a count
    as one, so the mirror of a held-out row is not trained on."""
    train_rows: Positive
    """Rows to train on."""
    validation_rows: Positive
    """Rows held out; none of them is trained on."""
    sha256: Sha256
    """Hash of the rows made. A wrong one is refused with the right one, so that data cannot change unnoticed."""


class TextFile(Section):
    """A file of rows."""

    path: str
    """`.jsonl`, one object a line: with `text`, or with `prompt` and `completion`. Then only the completion counts in the
    loss, and rows whose completion is right to the last token are the accuracy. Relative to the project's root."""
    sha256: Sha256
    """Hash of the file, as `sha256sum` prints it."""


class Files(Section):
    """Data of the user's own."""

    train: TextFile
    """Rows to train on."""
    validation: TextFile
    """Rows to evaluate on."""


class Data(Section):
    """What is learnt from. Exactly one of builtin and files."""

    builtin: Builtin | None = None
    """Named data that the project makes."""
    files: Files | None = None
    """Files of the user's own, pinned by hash."""
    max_length: Positive
    """Tokens per row; a longer row is refused, with its number."""
    tokenizer: Literal["characters", "pretrained"] = "characters"
    """characters: one token per character of a fixed alphabet (printable ASCII). pretrained: the tokenizer of model.pretrained."""
    workers: Annotated[int, Field(ge=0, le=64)] = 0
    """Processes that load data. The bits do not depend on it."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Data":
        if (self.builtin is None) == (self.files is None):
            raise ValueError("give exactly one of builtin and files")
        return self


class Optimizer(Section):
    """AdamW or SGD of torch."""

    name: Literal["adamw", "sgd"] = "adamw"
    """Which one."""
    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled for adamw."""
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """adamw only."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """adamw only."""
    momentum: Fraction = 0.0
    """sgd only."""


class Schedule(Section):
    """The learning rate as a pure function of the step."""

    name: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the warm-up: flat, or falling to `final_fraction`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps of linear warm-up from 0."""
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate as a fraction of the peak (linear and cosine)."""


class Parallel(Section):
    """The processes that share out the micro-batches of a step, on one node or several (`cluster.nodes`)."""

    ranks: Positive = 1
    """How many, over all nodes. Micro-batch m of a step is computed by rank m modulo ranks: the batch does not depend on their
    number. The bits do, unless `elastic`."""
    elastic: bool = False
    """true: the bits do not depend on the number of ranks, so that a run that was preempted on four may go on with two or one. The
    gradients of each micro-batch go to every rank and are added in the order of the micro-batches: `accumulation` times what is
    trained, sent once a step; good for LoRA, dear for whole models. Refused for models that change their buffers in training."""


class Training(Section):
    """How it is learnt."""

    epochs: Positive
    """Passes over the training rows."""
    batch_size: Positive
    """Rows per micro-batch."""
    accumulation: Positive = 1
    """Micro-batches per optimizer step, over all ranks."""
    parallel: Parallel = Parallel()
    """Ranks that share them out."""
    optimizer: Optimizer
    """Required: no learning rate is a good default."""
    schedule: Schedule = Schedule()
    """Learning rate over the steps."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast of the forward pass; weights and moments stay fp32."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; null for none."""

    @model_validator(mode="after")
    def _work_for_all(self) -> "Training":
        if self.accumulation < self.parallel.ranks:
            raise ValueError(f"accumulation is less than parallel.ranks: only {self.accumulation} would have work")
        return self


class Evaluation(Section):
    """Validation after each epoch, and once before the first step."""

    batch_size: Positive = 64
    """Rows per batch. No gradient is kept, so it may be larger than in training."""


class Checkpoints(Section):
    """One after each epoch, always (R6). These are the ones in between, and how many stay."""

    every_steps: Positive | None = None
    """Also every so many optimizer steps: a sudden death costs at most these, and those done while one is written."""
    keep: Positive = 3
    """How many stay, the newest, beside best and latest."""


class Numerics(Section):
    """What the bits depend on besides the recipe. Set before the process starts, recorded, compared."""

    device: Literal["cpu", "cuda"] = "cpu"
    """cuda: one GPU, asked for under `cluster`."""
    threads: Positive = 1
    """CPU threads of a run. Sums come out in another order with another number."""
    cpu_capability: Literal["avx2", "avx512", "default"] = "avx2"
    """Vector instructions. avx2: the same bits on every x86-64 machine since 2013."""
    deterministic: bool = True
    """torch.use_deterministic_algorithms and cudnn.deterministic. false is marked wherever the run is shown."""
    other_class: Literal["refuse", "mark"] = "refuse"
    """Where a run that was stopped would go on to other bits: another GPU, driver, CPU class. refuse: it does not; on Slurm it
    goes to another node. mark: it does, and the step is marked in the ledger and wherever the run is shown."""


class WandbTracking(Section):
    """Weights & Biases beside the tree; the tree stays the truth."""

    project: str
    """Name of the project."""
    entity: str | None = None
    """User or team."""
    mode: Literal["offline", "online"] = "offline"
    """offline needs no account; `wandb sync` sends the run later. online takes WANDB_API_KEY from the environment."""


class Tracking(Section):
    """Where the metrics go besides metrics.jsonl."""

    tensorboard: bool = True
    """Event files in metrics/seed-N/tensorboard."""
    wandb: WandbTracking | None = None
    """null: not used."""


class Recipe(Section):
    """All that changes a result, but the seed and the code."""

    model: Model
    """What is trained."""
    lora: Lora | None
    """Adapters; an explicit null trains the whole model."""
    data: Data
    """What is learnt from."""
    training: Training
    """How it is learnt."""
    evaluation: Evaluation = Evaluation()
    """How it is measured."""
    checkpoints: Checkpoints = Checkpoints()
    """What is kept on the way."""
    numerics: Numerics = Numerics()
    """What the bits depend on besides."""
    tracking: Tracking = Tracking()
    """Where the metrics go."""


class Specification(Section):
    """`run.json`: the only input of a run. Complete: no default is left open, nothing is read from elsewhere."""

    format: Literal[1]
    """`jobs.contract.SPECIFICATION_FORMAT`."""
    experiment: str
    """The experiment's name."""
    seed: Seed
    """The run's seed."""
    seeds: list[Seed]
    """All seeds of the experiment."""
    commit: Commit
    """The commit that the config and the code were taken from."""
    dirty: bool
    """Launched with --allow-dirty: the patch lies beside it, and the run counts as not reproducible."""
    config_sha256: Sha256
    """Hash of the experiment's config.yaml."""
    image: ImagePin
    """What it executes."""
    project_root: str
    """Absolute path that relative paths of the recipe start from."""
    launched: dict[str, str]
    """For the record only: launcher version, host, user, time, command line."""
    recipe: Recipe
    """What it computes."""
