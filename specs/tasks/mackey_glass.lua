-- The Mackey-Glass series (1977), chaotic: its next number follows from one 17 units of time ago, three numbers back.
return {
    name = "mackey_glass", hidden = 16, inputs = 1, outputs = 1, T = 50, batch = 8,
    optimizer = {"adam", rate = 5e-3}, schedule = {"cosine", steps = 4000}, clip = {norm = 1},
}
