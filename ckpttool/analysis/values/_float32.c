/* Passes over float32 values: all that tallies.py, or difference.py, asks of a block, at once and with both cores.

   Neither module needs them: where this could not be compiled, NumPy does the same in a pass for each number, and holds
   Python's lock in some. It is the judge in the tests. Sums are kept in lanes, for a compiler may hold these side by
   side in a register, but may not change the order of a sum by itself; and no longer than for a chunk, for what is added
   to a large sum is rounded as that is. */

#define Py_LIMITED_API 0x030B0000 /* Python 3.11: the first whose stable interface has buffers. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 32 /* As many as keep the adders busy: each sum waits for the one before. */
#define CHUNK 2048 /* Values that stay in the nearest cache for all that is asked of them. */
#define BINS 65536 /* By the sign, the exponent and the upper 7 bits of the fraction. */

/* Each pass is compiled twice where that can be: for any processor, and for those whose registers hold four doubles; the
   loader takes the one that fits. The order of the sums is the same, and so are they. */
#if !defined(PASS) && defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define PASS __attribute__((flatten, target_clones("avx2", "default")))
#endif
#endif
#ifndef PASS
#define PASS
#endif

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static int is_finite(float value)
{
    return (bits_of(value) & 0x7f800000) != 0x7f800000;
}

static double sum(const double lanes[LANES])
{
    double total = 0;
    for (int i = 0; i < LANES; i++)
        total += lanes[i];
    return total;
}

/* ---- Statistics: see tallies.py ---- */

typedef struct {
    Py_ssize_t nans, infinities, zeros, finite;
    double minimum, maximum, mean, squares;
} Tally;

typedef struct {
    double sum[LANES];
    float minimum[LANES], maximum[LANES];
} Spread;

/* Up to LANES values, one for each lane. */
static inline void spread(Spread *lanes, const float *values, int size)
{
    for (int i = 0; i < size; i++) {
        lanes->sum[i] += values[i];
        lanes->minimum[i] = values[i] < lanes->minimum[i] ? values[i] : lanes->minimum[i];
        lanes->maximum[i] = values[i] > lanes->maximum[i] ? values[i] : lanes->maximum[i];
    }
}

static inline void deviate(double squares[LANES], double mean, const float *values, int size)
{
    for (int i = 0; i < size; i++)
        squares[i] += (values[i] - mean) * (values[i] - mean);
}

/* Merges a mean and a sum of squared deviations, as `merged` does in tallies.py. */
static void merge(Tally *tally, double mean, double squares, int size)
{
    double total = (double)tally->finite + size, apart = mean - tally->mean;
    tally->mean += apart * (size / total);
    tally->squares += squares + apart * (tally->finite / total) * apart * size;
    tally->finite += size;
}

/* Adds up to CHUNK values, all finite. */
static void tally_finite(Tally *tally, int64_t *counts, const float *values, int size)
{
    Spread lanes;
    double squares[LANES] = {0};
    int i;
    memset(lanes.sum, 0, sizeof lanes.sum);
    for (i = 0; i < LANES; i++) {
        lanes.minimum[i] = INFINITY;
        lanes.maximum[i] = -INFINITY;
    }
    for (i = 0; i + LANES <= size; i += LANES)
        spread(&lanes, values + i, LANES);
    spread(&lanes, values + i, size - i);
    for (i = 0; i < LANES; i++) {
        tally->minimum = lanes.minimum[i] < tally->minimum ? lanes.minimum[i] : tally->minimum;
        tally->maximum = lanes.maximum[i] > tally->maximum ? lanes.maximum[i] : tally->maximum;
    }
    double mean = sum(lanes.sum) / size;
    for (i = 0; i + LANES <= size; i += LANES)
        deviate(squares, mean, values + i, LANES);
    deviate(squares, mean, values + i, size - i);
    merge(tally, mean, sum(squares), size);
#pragma GCC unroll 4 /* A third of the pass: the loop itself takes as long as the counting. */
    for (i = 0; i < size; i++)
        counts[bits_of(values[i]) >> 16]++;
}

/* Counts what is not finite, and keeps the others. */
static void keep_finite(Tally *tally, float *kept, const float *values, int size)
{
    int taken = 0;
    for (int i = 0; i < size; i++) {
        tally->nans += isnan(values[i]) != 0;
        tally->infinities += isinf(values[i]) != 0;
        kept[taken] = values[i];
        taken += is_finite(values[i]);
    }
}

PASS static void tally_chunk(Tally *tally, int64_t *counts, const float *values, int size)
{
    float kept[CHUNK];
    int finite = 0, zeros = 0;
    for (int i = 0; i < size; i++) {
        finite += is_finite(values[i]);
        zeros += values[i] == 0;
    }
    tally->zeros += zeros;
    if (finite < size) {
        keep_finite(tally, kept, values, size);
        values = kept;
    }
    if (finite)
        tally_finite(tally, counts, values, finite);
}

/* ---- Differences: see difference.py ---- */

typedef struct {
    Py_ssize_t changed, beyond;
    double max_abs, squares, dot, of_one, of_other;
} Gap;

typedef struct {
    double max_abs[LANES], squares[LANES], dot[LANES], of_one[LANES], of_other[LANES];
} Sums;

/* Up to LANES pairs, one for each lane. */
static inline void sum_up(Sums *lanes, const float *one, const float *other, const double *distances, int size)
{
    for (int i = 0; i < size; i++) {
        lanes->max_abs[i] = distances[i] > lanes->max_abs[i] ? distances[i] : lanes->max_abs[i];
        lanes->squares[i] += distances[i] * distances[i];
        lanes->dot[i] += (double)one[i] * other[i];
        lanes->of_one[i] += (double)one[i] * one[i];
        lanes->of_other[i] += (double)other[i] * other[i];
    }
}

/* An infinity is as far from itself as a NaN from a NaN, not at all; a NaN is far from all else. */
static void mend(double *distances, const float *one, const float *other, int size)
{
    for (int i = 0; i < size; i++)
        if (one[i] == other[i] || (isnan(one[i]) && isnan(other[i])))
            distances[i] = 0;
        else if (isnan(distances[i]))
            distances[i] = INFINITY;
}

PASS static void compare_chunk(Gap *gap, const float *one, const float *other, int size, double rtol, double atol)
{
    double distances[CHUNK];
    Sums lanes;
    int finite = 0, changed = 0, beyond = 0, i;
    for (i = 0; i < size; i++) {
        distances[i] = fabs((double)one[i] - other[i]);
        finite += is_finite(one[i]) & is_finite(other[i]);
    }
    if (finite < size)
        mend(distances, one, other, size);
    for (i = 0; i < size; i++)
        changed += distances[i] != 0;
    if (rtol == 0 && atol == 0)
        beyond = changed;
    else
        for (i = 0; i < size; i++) {
            int within = (distances[i] <= atol + rtol * fabs((double)other[i])) & (distances[i] < INFINITY);
            beyond += (distances[i] != 0) & !within;
        }
    gap->changed += changed;
    gap->beyond += beyond;
    memset(&lanes, 0, sizeof lanes);
    for (i = 0; i + LANES <= size; i += LANES)
        sum_up(&lanes, one + i, other + i, distances + i, LANES);
    sum_up(&lanes, one + i, other + i, distances + i, size - i);
    for (i = 0; i < LANES; i++)
        gap->max_abs = lanes.max_abs[i] > gap->max_abs ? lanes.max_abs[i] : gap->max_abs;
    gap->squares += sum(lanes.squares);
    gap->dot += sum(lanes.dot);
    gap->of_one += sum(lanes.of_one);
    gap->of_other += sum(lanes.of_other);
}

/* ---- For Python ---- */

/* Whether it is an aligned array of so many items; else an error is set. */
static int is_array(const Py_buffer *buffer, Py_ssize_t itemsize, Py_ssize_t size)
{
    if (buffer->len == size * itemsize && (uintptr_t)buffer->buf % itemsize == 0)
        return 1;
    PyErr_Format(PyExc_ValueError, "expected an aligned array of %zd items of %zd bytes", size, itemsize);
    return 0;
}

static int chunk(Py_ssize_t left)
{
    return left < CHUNK ? (int)left : CHUNK;
}

static PyObject *tally(PyObject *module, PyObject *args)
{
    Py_buffer values, counts;
    PyObject *fields = NULL;
    if (!PyArg_ParseTuple(args, "y*w*:tally", &values, &counts))
        return NULL;
    Py_ssize_t size = values.len / sizeof(float);
    if (is_array(&values, sizeof(float), size) && is_array(&counts, sizeof(int64_t), BINS)) {
        const float *each = values.buf;
        Tally whole = {.minimum = INFINITY, .maximum = -INFINITY};
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t at = 0; at < size; at += CHUNK)
            tally_chunk(&whole, counts.buf, each + at, chunk(size - at));
        Py_END_ALLOW_THREADS
        fields = Py_BuildValue("nnnndddd", whole.nans, whole.infinities, whole.zeros, whole.finite, whole.minimum,
                               whole.maximum, whole.mean, whole.squares);
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&counts);
    return fields;
}

static PyObject *compare(PyObject *module, PyObject *args)
{
    Py_buffer one, other;
    double rtol, atol;
    PyObject *fields = NULL;
    if (!PyArg_ParseTuple(args, "y*y*dd:compare", &one, &other, &rtol, &atol))
        return NULL;
    Py_ssize_t size = one.len / sizeof(float);
    if (is_array(&one, sizeof(float), size) && is_array(&other, sizeof(float), size)) {
        const float *x = one.buf, *y = other.buf;
        Gap whole = {.changed = 0};
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t at = 0; at < size; at += CHUNK)
            compare_chunk(&whole, x + at, y + at, chunk(size - at), rtol, atol);
        Py_END_ALLOW_THREADS
        fields = Py_BuildValue("nnddddd", whole.changed, whole.beyond, whole.max_abs, whole.squares, whole.dot,
                               whole.of_one, whole.of_other);
    }
    PyBuffer_Release(&one);
    PyBuffer_Release(&other);
    return fields;
}

static PyMethodDef functions[] = {
    {"tally", tally, METH_VARARGS, NULL},
    {"compare", compare, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_float32", NULL, 0, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__float32(void)
{
    return PyModuleDef_Init(&definition);
}
