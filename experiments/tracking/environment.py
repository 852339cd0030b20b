"""What the configuration and the user's ``WANDB_*`` variables say together.

An explicit key of the configuration comes first, then the user's variable, then what is usual here. But nothing goes
online against ``WANDB_MODE=offline`` or ``disabled``, whatever the configuration says.
"""

from __future__ import annotations

import netrc
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from experiments.errors import SuiteError, UserError

PROJECT = "ham-suite"
_ALIASES = {"dryrun": "offline", "run": "online"}  # of W&B's own
_MODES = ("online", "offline", "disabled")
_VARIABLES = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "dir": "WANDB_DIR",
    "console": "WANDB_CONSOLE",
    "disable_git": "WANDB_DISABLE_GIT",
    "x_disable_stats": "WANDB_X_DISABLE_STATS",
    "init_timeout": "WANDB_INIT_TIMEOUT",
}
CONNECTING = 3.0  # seconds until a server that does not take a connection counts as dead


@dataclass(frozen=True)
class Decided:
    """Whether and where W&B takes part, and what there is to say about it.

    Attributes:
        mode: ``online``, ``offline`` or ``disabled``.
        words: Where the configuration and the environment disagree, and which of them was followed.
    """

    mode: str
    words: tuple[str, ...] = ()


def decide(tracking: Any) -> Decided:
    """Decide the mode of a run from the section ``tracking`` of its specification and the environment."""
    wanted, words = tracking["wandb"], []
    name, said = _said()
    if wanted == "auto":
        mode = said or ("online" if logged_in() else "offline")
        if mode not in _MODES:
            words, mode = [f"{name}={mode} is none of {', '.join(_MODES)}; W&B stays offline"], "offline"
    elif wanted == "online" and said not in (None, "online"):
        mode = said if said in _MODES else "offline"
        words = [f"tracking.wandb is online, but nothing goes there against {name}={said}: it is {mode}"]
    else:
        mode = wanted
        words = [f"tracking.wandb is {mode}, which comes before {name}={said}"] if said not in (None, mode) else []
    if mode == "disabled":
        return Decided(mode, tuple(words))
    for key in ("project", "entity"):
        own, other = tracking[key], os.environ.get(_VARIABLES[key])
        if own is not None and other and own != other:
            words.append(f"tracking.{key} is {own}, which comes before {_VARIABLES[key]}={other}")
    return Decided(mode, tuple(words))


def _said() -> tuple[str, str | None]:
    """Return the variable that states a mode, and the mode; the stricter one where both variables do."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on"):
        return "WANDB_DISABLED", "disabled"
    said = os.environ.get("WANDB_MODE", "").strip().lower()
    return "WANDB_MODE", _ALIASES.get(said, said) or None


def logged_in() -> bool:
    """Return whether there is a key for the server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(server()).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def server() -> str:
    """Return the address of the server."""
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def why_unreachable() -> str | None:
    """Say why the server takes no connection, or return None; where a proxy is between, only W&B can tell."""
    url = urlsplit(server())
    if url.scheme in getproxies():
        return None
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=CONNECTING).close()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def require_server(project: str | None, entity: str | None) -> None:
    """Raise where a command may not, or cannot, talk to the server.

    Raises:
        UserError: if the environment keeps data off the network, or nobody is logged in.
        SuiteError: if the server is dead.
    """
    decided = decide({"wandb": "online", "project": project, "entity": entity})
    if decided.mode != "online":
        raise UserError(
            f"{decided.words[0].rpartition(' against ')[2].split(':')[0]} keeps data here; unset it to send"
        )
    if not logged_in():
        raise UserError("no key is known; log in by `wandb login`, or set WANDB_API_KEY", server())
    if (why := why_unreachable()) is not None:
        raise SuiteError(f"cannot be reached ({why}); nothing was sent, and nothing is lost", server())


def project_of(tracking: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return project and entity, the latter None for the user's own, by the configuration and the environment."""
    project, entity = (tracking.get(key) or os.environ.get(_VARIABLES[key]) for key in ("project", "entity"))
    return project or PROJECT, entity or None


def arguments(mode: str, tracking: Any, **defaults: Any) -> dict[str, Any]:
    """Return the arguments of ``wandb.init`` that the environment may change.

    Args:
        mode: From `decide`.
        tracking: The section of the specification.
        defaults: What holds where the user's environment says nothing; tags are added to the user's.
    """
    tags = [*defaults.pop("tags"), *filter(None, map(str.strip, os.environ.get("WANDB_TAGS", "").split(",")))]
    chosen = _unless_set(project=PROJECT, **defaults)
    chosen |= {key: tracking[key] for key in ("project", "entity") if tracking[key] is not None}
    return {**chosen, "mode": mode, "tags": list(dict.fromkeys(tags))}


def settings() -> dict[str, Any]:
    """Return the settings of W&B that are usual here."""
    return _unless_set(console="off", disable_git=True, x_disable_stats=True, init_timeout=20) | {"silent": True}


def _unless_set(**defaults: Any) -> dict[str, Any]:
    return {key: value for key, value in defaults.items() if not any(map(os.environ.get, _names(_VARIABLES[key])))}


def _names(variable: str) -> tuple[str, str]:
    """Return both spellings that W&B reads of a variable for one of its private settings."""
    return variable, variable.replace("WANDB_X_", "WANDB__")


def for_child() -> dict[str, str]:
    """Return the environment of a process that talks to W&B, and to no service of another one."""
    found = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    return {**found, "WANDB_SILENT": "true"}
