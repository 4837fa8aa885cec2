"""What can keep a developer's machine from running the demo; each says all there is to say."""

from __future__ import annotations

from typing import Final

from broker.dev.child import ServerStartError
from broker.dev.demo import DemoFailedError
from broker.dev.rundir import NoRunDirectoryError
from broker.dev.servers import NoFreePortError
from broker.dev.wheels import NoAccountError, WheelMissingError

DEV_FAILURES: Final = (
    DemoFailedError,
    NoAccountError,
    NoFreePortError,
    NoRunDirectoryError,
    ServerStartError,
    WheelMissingError,
)
