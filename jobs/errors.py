"""How a run ends other than done or saved: refused, fenced off, or failed for a known reason. Standard library only."""

import errno
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a file system without room."""

PASSING: Final = FULL | {errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
"""Errors that the next write may not meet: no reason to give up what was trained so far."""


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """The input, the image or the machine is not what the specification pins. Printed without a traceback; Exit.REFUSED."""


class Unfit(Refused):
    """The machine is not one on which this run may go on; another one may be. Exit.UNFIT."""


class Fenced(Exception):  # noqa: N818
    """A newer attempt of this run exists: write nothing more. Exit.FENCED."""


class Failed(Exception):  # noqa: N818
    """The run cannot go on, for a reason that a traceback would only hide. Exit.BROKEN."""


class PeerLost(Exception):  # noqa: N818
    """Another rank of this run is gone, and has or had the cause. Exit.PEER."""


class Stopped(Exception):  # noqa: N818
    """Asked to stop before anything was computed. Exit.SAVED."""
