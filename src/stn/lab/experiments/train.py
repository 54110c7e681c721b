"""The training loop of all experiments."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stn import _check
from stn.lab import _check as lab_check
from stn.lab.data import COPIES, Splits, load
from stn.lab.data.draw import Example
from stn.lab.experiments.batches import (
    DROPOUT,
    TEST,
    VALID,
    Batches,
    evaluation_batches,
    generator,
    steps_per_epoch,
    training_batches,
)
from stn.lab.experiments.evaluate import scores
from stn.lab.experiments.film import SAMPLES, Film
from stn.lab.experiments.folder import Row, RunFolder
from stn.lab.experiments.machine import arithmetic, present
from stn.lab.experiments.optimizers import OPTIMIZERS
from stn.lab.experiments.parallel import leave_process_group, process_lost, processes, share_batch_norm
from stn.lab.experiments.progress import Progress
from stn.lab.experiments.runs import Run
from stn.lab.experiments.tasks import TASKS
from stn.lab.experiments.watch import CollapseWarning, Watch, collapse
from stn.lab.experiments.workers import end_with_launcher
from stn.models.blocks import channels_last, set_dropout

STATE = ("network", "average", "optimizer", "schedule", "film")
LOOK_EVERY = 10  # steps between reads of the loss, each of which waits for the device


class TrainingDiverged(_check.InputError):
    """The loss is NaN or infinite."""


class ProcessLost(_check.InputError):
    """Another process of a parallel run has ended."""


def train(run: Run, folder: RunFolder, *, resume: bool = False, quiet: bool = False) -> list[Row]:
    """Train, evaluate on the test set, and return all rows. `resume` continues from the checkpoint if there is one.

    Raises: InputError for a folder in use, data that is missing or damaged; TrainingDiverged.
    """
    rows = _trained(run, folder, resume, quiet)
    leave_process_group()
    return rows


def _trained(run: Run, folder: RunFolder, resume: bool, quiet: bool) -> list[Row]:
    end_with_launcher()
    logger = TensorBoardLogger(folder.path, name="tensorboard", version="")
    devices, machines = processes(run.devices)
    present(run.accelerator, devices)
    precision: Any = arithmetic(run.precision, run.accelerator)
    fabric = Fabric(accelerator=run.accelerator, devices=devices, num_nodes=machines, precision=precision, loggers=logger)
    try:
        with ExitStack() as until_done:
            return _begun(run, folder, fabric, resume, until_done).fit(quiet=quiet)
    except RuntimeError as error:
        if devices * machines == 1 or not process_lost(error):
            raise
        rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK", "0")  # the process group may not exist
        raise ProcessLost(
            f"process {rank} of {devices * machines} lost contact with another one and exits. The files in {folder.path} "
            "are kept; the same command with --resume continues from there"
        ) from error


def _begun(run: Run, folder: RunFolder, fabric: Fabric, resume: bool, until_done: ExitStack) -> Trainer:
    """Return a training with the state of its folder, which is locked until the end."""
    fabric.launch()
    lab_check.divisible("batch_size", run.batch_size, fabric.world_size)
    with fabric.rank_zero_first():  # one process downloads missing files and creates the folder
        if fabric.is_global_zero:
            folder.check(run, resume=resume)
        data = load(run.data, run.root, download=run.download)
        if fabric.is_global_zero:
            until_done.enter_context(folder.lock())
            folder.open(run, resume=resume)
    trainer = Trainer(run, folder, fabric, data)
    trainer.restore(folder.load())
    if fabric.is_global_zero:
        folder.settle(run, trainer.rows)
    return trainer


class Trainer:
    """One training: the network, its optimizer and schedule, the progress, and the rows so far."""

    def __init__(self, run: Run, folder: RunFolder, fabric: Fabric, data: Splits) -> None:
        self.run, self.folder, self.fabric = run, folder, fabric
        self.data = Splits(*(split.to(fabric.device) for split in data.holding_out(run.held_out)))
        self.task = TASKS[run.distortion]
        self.copies = COPIES[run.data]
        self.steps = steps_per_epoch(self.data.train, batch_size=run.batch_size, copies=self.copies)
        torch.manual_seed(run.seed)
        # Channels-last memory makes a step 1.4 times as fast on a CPU; torch.compile 0.8 times, after compiling for a
        # minute.
        network = self.task.build(run.model, run.transform)
        set_dropout(network, run.dropout)
        channels_last(network)
        self.network = share_batch_norm(network, fabric.device) if fabric.world_size > 1 else network
        self.average = AveragedModel(self.network, use_buffers=True).to(fabric.device)
        self.evaluated = self.average.module if run.averaging else self.network
        self.watch = Watch(self.network)
        self.watch_evaluated = Watch(self.evaluated) if run.averaging else self.watch
        self.film = Film(self.evaluated, self.watch_evaluated, next(self._held_out(SAMPLES)).x)
        by = OPTIMIZERS[run.optimizer]
        optimizer = by(self.network, run.lr, run.localization_lr, weight_decay=run.weight_decay)
        peaks = [group["lr"] for group in optimizer.param_groups]
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=run.epochs * self.steps)
        self.model, self.optimizer = fabric.setup(self.network, optimizer)
        self.epoch, self.seconds = 0, 0.0
        self.rows: list[Row] = []

    def fit(self, *, quiet: bool = False) -> list[Row]:
        if len(self.rows) == self.run.epochs + self.run.draws:
            return self.rows  # the run was complete
        with Progress(self.run, self.steps, self.epoch, quiet=quiet or not self.fabric.is_global_zero) as progress:
            self._film(0)
            while self.epoch < self.run.epochs:
                self._train_epoch(progress)
                self._evaluate(progress)
                self._save()
            for draw in range(self.run.draws):
                self._test(progress, draw)
            self._save()
        return self.rows

    def _train_epoch(self, progress: Progress) -> None:
        start, sums = time.perf_counter(), torch.zeros(2, device=self.fabric.device)
        self.model.train()
        torch.manual_seed(generator(self.run.seed, DROPOUT, self.epoch, self.fabric.global_rank).initial_seed())
        self.watch.squares.zero_()
        setting = {"batch_size": self.run.batch_size, "copies": self.copies, "seed": self.run.seed}
        batches = training_batches(self.data.train, self.task.draw, epoch=self.epoch, **setting)
        for step, example in enumerate(batches, start=1):
            sums += self._step(self._mine(example))
            self._film(step)
            if step % LOOK_EVERY == 0 or step == self.steps:
                loss, wrong = (self._over_processes(sums) / step).tolist()
                self.training = {"train_loss": loss, "train_error_percent": 100 * wrong}
                self._check_loss(step)
                progress.update(self.epoch, step, *self.training.values())
        self.epoch += 1
        spent = time.perf_counter() - start
        self.seconds += spent
        self.training["images_per_second"] = round(self.steps * self.run.batch_size / spent, 1)
        if self.watch.layers:  # gradients of a process are of the mean over its part
            square = self._over_processes(self.watch.squares) / (self.steps * self.fabric.world_size)
            self.training["theta_gradient"] = square.sqrt().item()

    def _step(self, example: Example) -> Tensor:
        """Take one step of the optimizer. Returns the loss and the share of errors before it, as a tensor (2,)."""
        run = self.run
        logits = self.model(example.x)
        loss = self.task.loss(logits.float(), example.y, label_smoothing=run.label_smoothing)
        self.optimizer.zero_grad()
        self.fabric.backward(loss + self.watch.penalty(identity=run.identity_weight, off_image=run.off_image_weight))
        if run.clip_norm:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=run.clip_norm, error_if_nonfinite=False)
        self.optimizer.step()
        self.schedule.step()
        if run.averaging:
            self._follow()
        return torch.stack([loss.detach(), self.task.wrong(logits.detach(), example.y).float().mean()])

    def _follow(self) -> None:
        """Update average <- average + (1 - averaging) (network - average), at first faster, to forget untrained weights."""
        step = self.schedule.last_epoch
        self.average.multi_avg_fn = get_ema_multi_avg_fn(min(self.run.averaging, (1 + step) / (10 + step)))
        self.average.update_parameters(self.network)

    def _film(self, step: int) -> None:
        """Update the film after this step of the epoch."""
        if step or not self.epoch:
            self.film.shoot(self.epoch * self.steps + step, steps=self.steps, epochs=self.run.epochs)

    def _over_processes(self, value: Tensor) -> Tensor:
        """Return the mean over processes as a new tensor, because Fabric reduces in place."""
        mean = self.fabric.all_reduce(value.clone(), reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def _mine(self, example: Example) -> Example:
        """Return the part of a batch for this process. The whole batch does not depend on the number of processes."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        x, y, boxes = example
        return Example(x[rank::world], y[rank::world], None if boxes is None else boxes[rank::world])

    def _check_loss(self, step: int) -> None:
        if not math.isfinite(self.training["train_loss"]):
            where = f"in epoch {self.epoch + 1} by step {step}"
            self._diverged(f"the loss became {self.training['train_loss']} {where}", self.epoch)

    def _diverged(self, sentence: str, epoch: int) -> NoReturn:
        raise TrainingDiverged(
            f"{sentence}. Lower lr (now {self.run.lr}) or localization_lr (now {self.run.localization_lr}). "
            f"{self.kept(epoch)}"
        )

    def kept(self, epoch: int) -> str:
        done = f"The checkpoint of epoch {epoch} is kept" if epoch else "No epoch was completed"
        return f"{done} in {self.folder.path}"

    def _held_out(self, most: int | None = None) -> Iterator[Example]:
        return evaluation_batches(self.data.valid[:most], self.task.evaluated, seed=self.run.seed, stream=VALID)

    def _evaluate(self, progress: Progress) -> None:
        measured = self._scores(self._held_out())
        if not math.isfinite(measured["loss"]):  # weights that are not finite are not saved
            self._diverged(f"the loss of held-out images became {measured['loss']} in epoch {self.epoch}", self.epoch - 1)
        self._append({"split": "valid"}, measured | self.training)
        self._log_looks()
        progress.report(self.rows[-1])
        if sentence := collapse(self.rows[-1]):
            self.rows[-1]["warning"] = sentence
            warnings.warn(sentence, CollapseWarning, stacklevel=2)

    def _log_looks(self) -> None:
        picture = self.film.picture()
        for logger in self.fabric.loggers:
            if picture is not None and isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("looks", picture, self.rows[-1]["step"])

    def _test(self, progress: Progress, draw: int) -> None:
        """Test on the same images for every seed."""
        batches = evaluation_batches(self.data.test, self.task.evaluated, seed=0, stream=TEST, number=draw)
        self._append({"split": "test", "draw": draw}, self._scores(batches))
        progress.report(self.rows[-1])

    def _scores(self, batches: Batches) -> Row:
        """Evaluate the saved weights in full precision, like `stn evaluate`."""
        return scores(self.evaluated, self.task, map(self._mine, batches), self.watch_evaluated)

    def _append(self, which: Row, measured: Row) -> None:
        step = self.epoch * self.steps
        self.rows.append({"epoch": self.epoch, "step": step} | which | measured | {"seconds": round(self.seconds, 2)})
        split = which["split"]
        self.fabric.log_dict({f"{split}/{key}": value for key, value in measured.items()}, step + which.get("draw", 0))

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            state = {name: getattr(self, name).state_dict() for name in STATE}
            state["evaluated"] = self.evaluated.state_dict()
            progress = {"epoch": self.epoch, "step": self.epoch * self.steps, "seconds": self.seconds}
            self.folder.save(state | progress, self.rows, self.run)
        self.fabric.barrier()

    def restore(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        with self.folder.fitting():
            for name in STATE:
                getattr(self, name).load_state_dict(state.get(name, {}))  # checkpoints of earlier versions have no film
        self.epoch, self.seconds, self.rows = state["epoch"], state["seconds"], state["rows"]
