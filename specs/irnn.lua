-- An IRNN (Le, Jaitly, Hinton 2015): relu units that start by keeping their state, so that gradients neither vanish nor grow at first.
return {
    name = "irnn",
    activation = "relu",
    hidden = 128,
    vocab = 256,                        -- any bytes
    T = 64,
    batch = 16,
    carry = false,                      -- what is kept for ever would grow for ever
    init = {normal = 0.001},
    init_recurrent = {identity = 1.0},
    optimizer = {"adam", rate = 1e-3},
    clip = {norm = 1},
}
