-- An LSTM whose gates see its memory c through peepholes p (Gers and Schmidhuber, 2000).
local printable = {"\t", "\n"}
for byte = 32, 126 do table.insert(printable, string.char(byte)) end
return {
    name = "peephole", hidden = 128, vocab = table.concat(printable), T = 64, batch = 32, optimizer = {"adam", rate = 1e-3},
    cell = function()
        W, U, b = matrix(4 * hidden, input), matrix(4 * hidden, hidden), vector(4 * hidden)
        h, c, p_i, p_f, p_o = state(hidden), state(hidden), vector(hidden), vector(hidden), vector(hidden)
        a = W * x + U * h + b
        local function gate(n) return slice(a, (n - 1) * hidden + 1, n * hidden) end
        c = sigmoid(gate(1) + p_f * c) * c + sigmoid(gate(2) + p_i * c) * tanh(gate(3))
        h = sigmoid(gate(4) + p_o * c) * tanh(c)
    end,
}
