"""A sweep of four rows whose differences are known: HAM gains, Sign-In does not."""

from __future__ import annotations

from fake_runs import write_sweep

RIGL, HAM, SIGN_IN = (
    {"topology.name": "rigl"},
    {"optimizer.ham": {"alpha": 20.0, "beta": 0.001}},
    {"representation.name": "sign_in"},
)


ROWS = {"Dense": {}, "RiGL": RIGL, "RiGL + HAM": RIGL | HAM, "RiGL + Sign-In": RIGL | SIGN_IN}
BASELINES = {"RiGL + HAM": "RiGL", "RiGL + Sign-In": "RiGL"}
SEVERAL = [{"model.name": m, "topology.sparsity": s} for m in ("resnet8", "mlp_bn") for s in (0.8, 0.95)]


def value(row, column, seed):
    """HAM gains 1.0, 1.1 and 1.2 points, Sign-In -0.2, 0 and 0.2."""
    added = (0.01 + 0.001 * seed if "HAM" in row else 0) + (0.002 * (seed - 1) if "Sign-In" in row else 0)
    return round(0.8 + 0.002 * (seed * 7 % 5) - 0.02 * ("Dense" not in row) + added, 4)


def sweep(directory, columns=({"topology.sparsity": 0.95},), **manifest):
    return write_sweep(directory, value, ROWS, columns, (0, 1, 2), BASELINES, **manifest)
