-- The next number of a sine whose frequency and phase are to be found in the 40 numbers before it.
return {
    name = "sine", cell = "gru", hidden = 16, inputs = 1, outputs = 1, T = 40, batch = 32, loss_at = "last", carry = false,
    optimizer = {"adam", rate = 1e-2}, schedule = {"cosine", steps = 1890}, clip = {norm = 1},
}
