// Sums of rows, the same for any number of threads.

#pragma once

#include "common.h"

namespace seamo {

// to [width] = the sum of the rows of [0, count).
void sum_rows(const StoredRows& rows, int64_t count, int64_t width, float* to);

// to [groups, width]: the sums of `group` rows each.
void sum_groups(const StoredRows& rows, int64_t groups, int64_t group, int64_t width, float* to);

// to [positions, width]: for each position the sum of the rows whose index it is.
void sum_by_index(const StoredRows& rows, const Index& index, int64_t count, int64_t width,
                  int64_t positions, float* to);

}  // namespace seamo
