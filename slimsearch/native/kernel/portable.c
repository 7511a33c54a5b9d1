#define HERE for_portable
#define WIDE 0
#define BF16 0
#define AMX 0
#include "target.h"
