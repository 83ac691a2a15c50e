// gather_patches on the CPU: raw bands to normalised patches.

#pragma once

#include "common.h"

namespace seamo {

enum class Pixel { u8, u16, i16, f16, f32 };

// One grid [B, T, C, H, W] of a modality; the last stride is 1.
struct Grid {
  const void* data;
  Pixel pixel;
  int64_t channels, height, width;
  int64_t batch, season, channel, row;  // strides
  const int64_t* out_channels;          // [channels]: where each channel goes
  bool has_nodata;
  float nodata;
};

struct GatherPatches {
  const Grid* grids;
  int64_t grid_count, channels;  // of all grids
  int64_t batch, seasons, wanted;
  int64_t image_height, image_width, patch;
  bool whole_pixel;    // nodata is a value unless it is in all channels of a pixel
  float limit;         // larger floats are lost, as NaN; no integer of a grid is larger
  const float* boxes;  // [batch, seasons, 4]
  Index index;         // [batch, seasons, wanted]
  const float* shift;  // [channels], in the order of the output
  const float* scale;
  void* out;    // [batch, seasons, wanted, channels, patch, patch]
  bool half;    // of out
  bool* valid;  // [batch, seasons, wanted]
};

void gather_patches(const GatherPatches& x);

}  // namespace seamo
