/* The kernels once more, compiled for what the including file says; it names the result HERE. */

#include "native.h"
#include "pool.h"
#include "variants.h"

#include "vectors.h"

#include "matrices.h"

#include "decoder.h"

const Variant HERE = {step_here, multiply_here};
