-- The embedded Reber grammar (Smith and Zipser 1989): a string's second letter returns as its last but one, some ten steps later.
return {
    name = "reber", cell = "gru", hidden = 24, vocab = "BTPSXVE\n", T = 48, batch = 16,
    optimizer = {"adam", rate = 1e-2}, clip = {norm = 1},
}
