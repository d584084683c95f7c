-- A leaky RNN (Jaeger et al., 2007) whose units each learn how much they keep, and a residual connection around a second layer.
local printable = {"\t", "\n"}
for byte = 32, 126 do table.insert(printable, string.char(byte)) end
return {
    name = "residual", hidden = 128, vocab = table.concat(printable), T = 64, batch = 32, optimizer = {"adam", rate = 1e-3},
    cell = function()
        W, U, b = matrix(hidden, input), matrix(hidden, hidden), vector(hidden)
        V, c, keep = matrix(hidden, hidden), vector(hidden), vector(hidden)
        h, leak = state(hidden), sigmoid(keep)
        h = leak * h + (1 - leak) * tanh(W * x + U * h + b)
        output = h + tanh(V * h + c)
    end,
}
