"""The processes that decode a stream."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderPool:
    """How many there are, and what each may take.

    Attributes:
        num_decoders: 1 or more.
        cpus: Of each, above 0.
        timeout_s: Seconds that a clip may take.
        resource: Custom Ray resource of the nodes that decode, which a decoder takes ``cpus`` of;
            every node does where it is empty.
    """

    num_decoders: int
    cpus: float
    timeout_s: float
    resource: str = ""

    @property
    def custom_resources(self) -> dict[str, float]:
        """What a decoder takes of ``resource``."""
        return {self.resource: self.cpus} if self.resource else {}
