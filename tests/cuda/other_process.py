"""What a second process does with the memory of a first. Without torch: it starts at once."""

from multiprocessing.connection import Connection

from tests.cuda.emulation import emulated_driver


def write_back(handle: bytes, pipe: Connection) -> None:
    """Send the first four bytes, write four others, close."""
    driver = emulated_driver()
    with driver.in_primary_context(0):
        memory = driver.open_ipc(handle)
        pipe.send(driver.copy_from_device(memory, 4))
        driver.copy_to_device(memory, b"back")
        driver.close_ipc(memory)
        pipe.send("closed")
