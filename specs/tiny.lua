return {
    name = "tiny",
    hidden = 16,
    vocab = 16,
    T = 16,
}
