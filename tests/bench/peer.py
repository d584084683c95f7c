"""What the Python peers share: the task, and the conversation with peers.c, all of it over stdin and stdout.

First comes a line "cell G H V T B chunks rate epsilon limit", then W_xh [V][G H], W_hh [H][G H], W_hy [H][V] as float32 and x,
y [chunks][T][B] as uint32; the G gates of a row are side by side in PyTorch's order.  The answer is "ready".  Then each line
"n" asks for n steps and is answered by "seconds loss": the processor time of these steps and the loss of the last one.  The
end of stdin ends the peer.
"""

import sys
import time

import numpy as np


class Task:
    def __init__(self):
        words = sys.stdin.buffer.readline().split()
        self.cell = words[0].decode()
        self.G, self.H, self.V, self.T, self.B, self.chunks = (int(word) for word in words[1:7])
        self.rate, self.epsilon, self.limit = (float(word) for word in words[7:])
        self.W_xh = self.array(np.float32, self.V, self.G * self.H)
        self.W_hh = self.array(np.float32, self.H, self.G * self.H)
        self.W_hy = self.array(np.float32, self.H, self.V)
        self.x = self.array(np.uint32, self.chunks, self.T, self.B).astype(np.int64)
        self.y = self.array(np.uint32, self.chunks, self.T, self.B).astype(np.int64)

    @staticmethod
    def array(kind, *shape):
        count = int(np.prod(shape))
        return np.frombuffer(sys.stdin.buffer.read(4 * count), kind, count).reshape(shape).copy()


def serve(task, step):
    """step(i) trains on chunk i and returns the loss, or something that float() turns into it."""
    number = 0
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        start = time.process_time()
        for _ in range(int(line)):
            loss = step(number % task.chunks)
            number += 1
        print(time.process_time() - start, float(loss), flush=True)
