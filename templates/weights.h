% local NAME = string.upper(name)
/* ${name}_weights.h: the weights of ${name}, written by bptt ${version} (bptt export --to c-header).
 *
 * Spec digest ${digest}.  An array for each tensor of a weight file, in PyTorch's names, shapes
 * ([outputs][inputs], row after row) and order of gates.  To fill the model that bptt gen emits:
 *
 *     #include "${name}.h"
 *     #include "${name}_weights.h"
 *     ...
 *     ${name}_init(&m, 0);
 *     if (${name}_load(&m) != 0) { ... }
 *
 * Constants are hexadecimal, hence exact; C99, C++17.
 */
#ifndef ${NAME}_WEIGHTS_H
#define ${NAME}_WEIGHTS_H

#include <stddef.h>
#include <string.h>
% for _, tensor in ipairs(tensors) do

/* ${tensor.name} ${tensor.shape} */
static const ${real} ${tensor.array}[${tensor.count}] = {
${tensor.values}};
% end

/* The same as a table. */
typedef struct ${name}_weight {
    const char *name; /* in a weight file */
    const ${real} *values;
    size_t count;
} ${name}_weight;

static const ${name}_weight ${name}_weights[${#tensors}] = {
% for _, tensor in ipairs(tensors) do
    {"${tensor.name}", ${tensor.array}, ${tensor.count}},
% end
};

/* The values called `name`; NULL: there are none, or not `count` of them. */
static inline const ${real} *${name}_find_weight(const char *name, size_t count)
{
    for (size_t i = 0; i < ${#tensors}; i++) {
        const ${name}_weight *const weight = &${name}_weights[i];
        if (strcmp(weight->name, name) == 0) { return weight->count == count ? weight->values : NULL; }
    }
    return NULL;
}

#ifdef ${NAME}_H /* ${name}.h has been included */
/* Fills the parameters of a model after ${name}_init; two biases of one gate are added up.  Returns 0; -1: the model of ${name}.h
 * has other tensors, and some of its parameters may have been written. */
static inline int ${name}_load(${name} *m)
{
    if (${name}_model.real_size != sizeof(${real})) { return -1; }
    for (size_t t = 0; t < ${name}_model.tensor_count; t++) {
        const bptt_tensor *const to = &${name}_model.tensors[t];
        const size_t rows = to->rows, cols = to->cols, count = rows * cols * to->parts, first = to->part * cols;
        const ${real} *const values = ${name}_find_weight(to->file, count);
        const ${real} *const twin = to->twin != NULL ? ${name}_find_weight(to->twin, count) : NULL;
        if (values == NULL || (to->twin != NULL && twin == NULL)) { return -1; }
        for (size_t row = 0; row < rows; row++) {
            for (size_t col = 0; col < cols; col++) {
                const size_t i = to->table != 0 ? row * cols + col : (first + col) * rows + row;
                const int second = twin != NULL && (twin[i] < 0 || twin[i] > 0); /* -0 + 0 would not be -0 */
                m->param[to->offset + row * to->stride + col] = second ? values[i] + twin[i] : values[i];
            }
        }
    }
    ${name}_refresh(m);
    return 0;
}
#endif

#endif
