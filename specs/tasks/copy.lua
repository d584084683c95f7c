-- Which of four symbols was it, T - 1 steps ago?  A chunk of T steps has both ends; with K = T - 1 they lie in two.
return {
    name = "copy", cell = "gru", hidden = 24, inputs = 4, vocab = 4, T = 20, batch = 32,
    loss_at = "last", carry = false, optimizer = {"adam", rate = 5e-3}, clip = {norm = 1},
}
