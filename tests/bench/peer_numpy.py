"""The character RNN as it is often written in numpy: a step of time after the other, forward and back.  A peer of peers.c."""

import numpy as np

from peer import Task, serve

task = Task()
H, V, T, B = task.H, task.V, task.T, task.B
params = [task.W_xh, task.W_hh, task.W_hy, np.zeros(H, np.float32), np.zeros(V, np.float32)]
memory = [np.zeros_like(p) for p in params]
h = np.zeros((T + 1, B, H), np.float32)
p = np.zeros((T, B, V), np.float32)
everyone = np.arange(B)


def forward(x, y):
    W_xh, W_hh, W_hy, b_h, b_y = params
    loss = 0.0
    for t in range(T):
        h[t + 1] = np.tanh(W_xh[x[t]] + h[t] @ W_hh + b_h)
        o = h[t + 1] @ W_hy + b_y
        e = np.exp(o - o.max(axis=1, keepdims=True))
        p[t] = e / e.sum(axis=1, keepdims=True)
        loss -= np.log(p[t, everyone, y[t]]).sum()
    return loss / (T * B)


def backward(x, y):
    W_xh, W_hh, W_hy, b_h, b_y = params
    dW_xh, dW_hh, dW_hy, db_h, db_y = gradients = [np.zeros_like(p) for p in params]
    carry = np.zeros((B, H), np.float32)
    for t in reversed(range(T)):
        do = p[t]
        do[everyone, y[t]] -= 1
        do /= T * B
        dW_hy += h[t + 1].T @ do
        db_y += do.sum(axis=0)
        da = (do @ W_hy.T + carry) * (1 - h[t + 1] * h[t + 1])
        dW_hh += h[t].T @ da
        db_h += da.sum(axis=0)
        for b in range(B):
            dW_xh[x[t, b]] += da[b]
        carry = da @ W_hh.T
    return gradients


def update(gradients):
    norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients))
    for p, g, m in zip(params, gradients, memory):
        if norm > task.limit:
            g *= task.limit / norm
        m += g * g
        p -= task.rate * g / (np.sqrt(m) + task.epsilon)


def step(chunk):
    x, y = task.x[chunk], task.y[chunk]
    loss = forward(x, y)
    update(backward(x, y))
    return loss


serve(task, step)
