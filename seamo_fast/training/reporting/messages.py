"""What a run says at its start and at its end."""

from __future__ import annotations

from signal import Signals

from seamo_fast.model.config import ModelConfig
from seamo_fast.training.distributed import ranks
from seamo_fast.training.recovery.run_state import RunState
from seamo_fast.training.schedule import Stage


def introduction(state: RunState, rate: float) -> list[str]:
    """Returns lines about the model, the machine and the stages.

    Args:
        state: The run.
        rate: FLOP/s of matrix products, all ranks together.
    """
    parameters = sum(parameter.numel() for parameter in state.model.parameters())
    return [
        f"{state.folder}: {parameters / 1e6:.1f} M parameters, {len(state.shards)} samples, "
        f"{ranks.world()} x {state.device.type} in {str(state.dtype).removeprefix('torch.')}, "
        f"matrix products {rate / 1e9:.0f} GFLOP/s, {state.plan.total} steps",
        *(
            f"stage {stage.name}: {steps} steps, {stage.seasons} seasons of "
            f"{', '.join(stage.modalities)}, {_fusion(state.config.model, stage)}"
            for stage, steps in zip(state.plan.stages, state.plan.steps, strict=True)
        ),
    ]


def _fusion(model: ModelConfig, stage: Stage) -> str:
    return "with fusion" if stage.fusion and model.fusion != "none" else "without fusion"


def already_finished(state: RunState) -> str:
    """Returns why nothing is trained."""
    return (
        f"{state.folder} is finished already, at step {state.step}; choose another "
        "--run.folder, or start over with --run.resume none"
    )


def conclusion(state: RunState, stopped: Signals | None) -> str:
    """Returns how the run ended.

    Args:
        state: The run.
        stopped: The signal that stopped it before its last step.
    """
    if stopped is not None:
        return (
            f"stopped by {stopped.name} after step {state.step} of {state.plan.total}, "
            "which is saved; the same command resumes there"
        )
    return f"finished; look at {state.folder / 'loss.png'} and {state.folder / 'reconstructions'}"
