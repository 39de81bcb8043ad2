"""Sums between the GPUs of one machine, by a kernel that writes into the other GPUs' memory.

Each rank owns an inbox that all others of its group write to. It has two halves, each with a row of
slots for every sender. A slot is 16 bytes, {low word, number, high word, number}: both of its
8-byte halves are written and read whole, and each tells by the sum's number whether it has come. So
there is no flag beside the data, no fence and no barrier, and nothing is ever cleared.

Sum number s goes into half s mod 2. Each rank writes its vector into every other inbox, waits for
the others' in its own, and adds up in the ranks' order, its own in its place: all get the same
bits. Two halves suffice: who has finished sum s + 1 has every other's part of it, and a rank sends
s + 1 only after its kernel of s has ended. So nobody reads half s mod 2 any more when s + 2 is
written. (tests/comm/peer goes through every interleaving of two ranks.)

Slot 0 of a row says what is summed: a checksum of the name, and the length.
"""
