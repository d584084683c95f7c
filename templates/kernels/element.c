% local element = kernels.elements[k.op]
${signature(k)}
{
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const vec a = load(in + j);
% if element[1] == 2 then
        const vec b = load(with + j);
% end
        store(out + j, ${element[2]});
    }
}
