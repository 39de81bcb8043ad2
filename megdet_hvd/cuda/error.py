"""What becomes of a CUDA call that fails."""


class CudaError(RuntimeError):
    """A call of a CUDA library failed; the text has the call, the error's name and its number."""

    def __init__(self, call: str, number: int, name: str, text: str = "") -> None:
        more = f": {text}" if text else ""
        super().__init__(f"{call} failed with {name} ({number}){more}")
        self.call = call
        """The library's function."""
        self.number = number
        """As the library's header has it."""
        self.name = name
        """The same as a word, ``CUDA_ERROR_OUT_OF_MEMORY``."""


class NoCudaLibrary(RuntimeError):
    """A CUDA library is not on this machine; the text says where it was looked for."""
