-- The parity of up to 15 bits, asked after the last: the least memory there is, but of every bit.
return {
    name = "parity", cell = "gru", hidden = 16, inputs = 2, vocab = 2, T = 16, batch = 32,
    carry = false, optimizer = {"adam", rate = 1e-2}, clip = {norm = 1},
}
