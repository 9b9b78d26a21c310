"""What the run refuses to do, as opposed to what breaks. Standard library only."""


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """The input, the image or the machine is not what the specification pins. Printed without a traceback; Exit.REFUSED."""


class Fenced(Exception):  # noqa: N818
    """A newer attempt of this run exists: write nothing more. Exit.FENCED."""
