-- The adding problem (Hochreiter and Schmidhuber 1997): of 50 numbers two are marked; their sum is wanted at the end.
return {
    name = "adding", cell = "lstm", hidden = 24, inputs = 2, outputs = 1, T = 50, batch = 32,
    loss_at = "last", carry = false, optimizer = {"adam", rate = 5e-3}, clip = {norm = 1},
}
