-- The minimal gated unit (Zhou et al., 2016): one gate f that forgets and resets.  In a cell's function every global is an equation.
local printable = {"\t", "\n"}
for byte = 32, 126 do table.insert(printable, string.char(byte)) end
return {
    name = "mgu", hidden = 128, vocab = table.concat(printable), T = 64, batch = 32, optimizer = {"adam", rate = 1e-3},
    cell = function()
        W_f, U_f, b_f = matrix(hidden, input), matrix(hidden, hidden), vector(hidden)
        W_h, U_h, b_h = matrix(hidden, input), matrix(hidden, hidden), vector(hidden)
        h = state(hidden)
        f = sigmoid(W_f * x + U_f * h + b_f)
        h = (1 - f) * h + f * tanh(W_h * x + U_h * (f * h) + b_h)
    end,
}
