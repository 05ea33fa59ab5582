// The algorithm of fourdgs/raster in C++, for raster_cpu.py to measure against: one camera, three channels, float32.
//
// The 16 lanes are AVX-512 intrinsics where the machine has them, and GCC's and Clang's vector extensions elsewhere.
// Built by the benchmark with -O3 -march=native -ffast-math -fopenmp.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

typedef float f16 __attribute__((vector_size(64)));
typedef float f16u __attribute__((vector_size(64), aligned(4)));
typedef int32_t i16 __attribute__((vector_size(64)));

namespace {

constexpr int TILE = 16, PIXELS = TILE * TILE;
constexpr float ALPHA_MIN = 1.0f / 255.0f, ALPHA_MAX = 0.999f, T_STOP = 1e-4f, NEVER = 1e30f;
constexpr float LN2 = 0.6931471805599453f, LOG2E = 1.4426950408889634f;

inline f16 load(const float *p) { return *reinterpret_cast<const f16u *>(p); }
inline void store(float *p, f16 v) { *reinterpret_cast<f16u *>(p) = v; }
inline f16 spread(float x) { return f16{} + x; }
#ifdef __AVX512F__
typedef __mmask16 mask;
inline float total(f16 v) { return _mm512_reduce_add_ps((__m512)v); }
inline bool some(mask m) { return m; }
inline f16 choose(mask m, f16 yes, f16 no) { return (f16)_mm512_mask_blend_ps(m, (__m512)no, (__m512)yes); }
inline mask less(f16 a, f16 b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
inline mask at_most(f16 a, f16 b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
inline f16 least(f16 a, f16 b) { return (f16)_mm512_min_ps((__m512)a, (__m512)b); }
inline f16 most(f16 a, f16 b) { return (f16)_mm512_max_ps((__m512)a, (__m512)b); }
inline f16 round(f16 a) { return (f16)_mm512_roundscale_ps((__m512)a, 8); }
inline i16 whole_numbers(f16 a) { return (i16)_mm512_cvttps_epi32((__m512)a); }
#else
typedef i16 mask;
inline float total(f16 v) {
    float sum = 0;
    for (int k = 0; k < 16; k++) sum += v[k];
    return sum;
}
inline bool some(mask m) {
    int32_t any = 0;
    for (int k = 0; k < 16; k++) any |= m[k];
    return any;
}
inline f16 choose(mask m, f16 yes, f16 no) { return m ? yes : no; }
inline mask less(f16 a, f16 b) { return a < b; }
inline mask at_most(f16 a, f16 b) { return a <= b; }
inline f16 least(f16 a, f16 b) { return a < b ? a : b; }
inline f16 most(f16 a, f16 b) { return a > b ? a : b; }
inline f16 round(f16 a) {
    f16 b;
    for (int k = 0; k < 16; k++) b[k] = std::nearbyintf(a[k]);
    return b;
}
inline i16 whole_numbers(f16 a) { return __builtin_convertvector(a, i16); }
#endif

inline f16 exp2_(f16 p) {
    p = most(p, spread(-60.0f));
    f16 whole = round(p), f = p - whole;
    f16 v = f * 0.00132186724816f + 0.0096716979384f;
    v = v * f + 0.0555089295f;
    v = v * f + 0.240222380027412f;
    v = v * f + 0.6931468559416913f;
    v = v * f + 1.0f;
    i16 bits = (whole_numbers(whole) + 127) << 23;
    return v * reinterpret_cast<f16 &>(bits);
}

struct Record {
    float x, y, a, b, c, opacity, red, green, blue;
};
struct Entry {
    int32_t g, rows, slot;
};
struct Slot {
    float x, y, a, b, c, opacity, red, green, blue;
};

struct Scene {
    int count, width, height;
    const float *means, *quats, *scales, *opacities, *colors, *view, *K;
};

struct Projected {
    float u[3], v[3], r[9], inv, x, y, z, tx, ty;
    bool in_x, in_y;
};

inline void rotation(const float *q, float *r, float *inv) {
    *inv = 1.0f / std::max(std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]), 1e-12f);
    float w = q[0] * *inv, x = q[1] * *inv, y = q[2] * *inv, z = q[3] * *inv;
    r[0] = 1 - 2 * (y * y + z * z), r[1] = 2 * (x * y - w * z), r[2] = 2 * (x * z + w * y);
    r[3] = 2 * (x * y + w * z), r[4] = 1 - 2 * (x * x + z * z), r[5] = 2 * (y * z - w * x);
    r[6] = 2 * (x * z - w * y), r[7] = 2 * (y * z + w * x), r[8] = 1 - 2 * (x * x + y * y);
}

inline Projected project(const Scene &s, int n) {
    Projected p;
    const float *m = s.means + 3 * n, *W = s.view, *K = s.K;
    p.x = W[0] * m[0] + W[1] * m[1] + W[2] * m[2] + W[3];
    p.y = W[4] * m[0] + W[5] * m[1] + W[6] * m[2] + W[7];
    p.z = W[8] * m[0] + W[9] * m[1] + W[10] * m[2] + W[11];
    rotation(s.quats + 4 * n, p.r, &p.inv);
    float fx = K[0], fy = K[4], iz = 1.0f / p.z;
    float mx = 0.15f * s.width / fx, my = 0.15f * s.height / fy;
    float left = -(K[2] / fx + mx), right = (s.width - K[2]) / fx + mx;
    float top = -(K[5] / fy + my), bottom = (s.height - K[5]) / fy + my;
    p.tx = std::min(std::max(p.x * iz, left), right), p.ty = std::min(std::max(p.y * iz, top), bottom);
    p.in_x = p.x * iz >= left && p.x * iz <= right, p.in_y = p.y * iz >= top && p.y * iz <= bottom;
    for (int k = 0; k < 3; k++) {
        p.u[k] = fx * iz * (W[k] - p.tx * W[8 + k]);
        p.v[k] = fy * iz * (W[4 + k] - p.ty * W[8 + k]);
    }
    return p;
}

}  // namespace

extern "C" void render(int count, const float *means, const float *quats, const float *scales, const float *opacities,
                       const float *colors, const float *view, const float *K, int width, int height,
                       const float *background, float *image, float *alpha_out, const float *v_image,
                       float *v_means, float *v_quats, float *v_scales, float *v_opacities, float *v_colors,
                       int threads) {
    Scene s{count, width, height, means, quats, scales, opacities, colors, view, K};
    const float eps2d = 0.3f, near = 0.01f;
    const int tiles_x = (width + TILE - 1) / TILE, tiles_y = (height + TILE - 1) / TILE, tiles = tiles_x * tiles_y;
    std::vector<float> means2d(2 * count), conics(3 * count), depths(count), radii(2 * count);
    std::vector<int32_t> room(count), first(count), last(count);

    // Projection, and an upper bound of the tiles touched.
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int n = 0; n < count; n++) {
        radii[2 * n] = 0;
        room[n] = 0;
        Projected p = project(s, n);
        depths[n] = p.z;
        if (p.z < near) continue;
        float m[3], w[3];
        for (int k = 0; k < 3; k++) {
            m[k] = (p.u[0] * p.r[k] + p.u[1] * p.r[3 + k] + p.u[2] * p.r[6 + k]) * scales[3 * n + k];
            w[k] = (p.v[0] * p.r[k] + p.v[1] * p.r[3 + k] + p.v[2] * p.r[6 + k]) * scales[3 * n + k];
        }
        float var_x = m[0] * m[0] + m[1] * m[1] + m[2] * m[2], var_y = w[0] * w[0] + w[1] * w[1] + w[2] * w[2];
        float cov = m[0] * w[0] + m[1] * w[1] + m[2] * w[2];
        float k0 = m[1] * w[2] - m[2] * w[1], k1 = m[2] * w[0] - m[0] * w[2], k2 = m[0] * w[1] - m[1] * w[0];
        float det = k0 * k0 + k1 * k1 + k2 * k2 + eps2d * (var_x + var_y) + eps2d * eps2d;
        var_x += eps2d, var_y += eps2d;
        if (!(det > 0) || opacities[n] < ALPHA_MIN) continue;
        float extent = std::min(3.33f, std::sqrt(2 * std::log(opacities[n] / ALPHA_MIN)));
        float rx = std::ceil(extent * std::sqrt(var_x)), ry = std::ceil(extent * std::sqrt(var_y));
        float x = K[0] * p.x / p.z + K[2], y = K[4] * p.y / p.z + K[5];
        if (x + rx <= 0 || x - rx >= width || y + ry <= 0 || y - ry >= height || rx <= 0) continue;
        means2d[2 * n] = x, means2d[2 * n + 1] = y, radii[2 * n] = rx, radii[2 * n + 1] = ry;
        conics[3 * n] = var_y / det, conics[3 * n + 1] = -cov / det, conics[3 * n + 2] = var_x / det;
        int x0 = std::clamp((int)std::floor((x - rx) / TILE), 0, tiles_x);
        int x1 = std::clamp((int)std::floor((x + rx) / TILE) + 1, 0, tiles_x);
        int y0 = std::clamp((int)std::floor((y - ry) / TILE), 0, tiles_y);
        int y1 = std::clamp((int)std::floor((y + ry) / TILE) + 1, 0, tiles_y);
        room[n] = (x1 - x0) * (y1 - y0);
    }
    int slots_room = 0;
    for (int n = 0; n < count; n++) first[n] = slots_room, slots_room += room[n];

    // Tiles and rows that each ellipse touches.
    std::vector<Record> records(count);
    std::vector<int32_t> slot_tile(slots_room), slot_rows(slots_room);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int n = 0; n < count; n++) {
        last[n] = first[n];
        if (radii[2 * n] <= 0) continue;
        double x = means2d[2 * n], y = means2d[2 * n + 1];
        double a = conics[3 * n], b = conics[3 * n + 1], c = conics[3 * n + 2];
        records[n] = {(float)x, (float)y, -0.5f * LOG2E * (float)a, -LOG2E * (float)b, -0.5f * LOG2E * (float)c,
                      opacities[n], colors[3 * n], colors[3 * n + 1], colors[3 * n + 2]};
        double level = 2.0 * std::log(255.0f * opacities[n]) + 1e-3, det = a * c - b * b;
        double reach_x = radii[2 * n], reach_y = radii[2 * n + 1], extreme = 0, inv_c = 0;
        bool exact = det > 0;
        if (exact) {
            double top = std::sqrt(level * a / det);
            inv_c = 1 / c, extreme = -b * top / a;
            reach_x = std::min(reach_x, std::sqrt(level * c / det)), reach_y = std::min(reach_y, top);
        }
        int x0 = std::clamp((int)std::floor((x - reach_x) / TILE), 0, tiles_x);
        int x1 = std::clamp((int)std::floor((x + reach_x) / TILE) + 1, 0, tiles_x);
        int at = first[n];
        for (int column = x0; column < x1; column++) {
            double low = -reach_y, high = reach_y;
            if (exact) {
                double left = std::max(column * TILE + 0.5 - x, -reach_x);
                double right = std::min(column * TILE + (TILE - 0.5) - x, reach_x);
                if (left > right) continue;
                if (extreme < left || extreme > right) {
                    double e = extreme < left ? left : right;
                    high = std::min(high, (-b * e + std::sqrt(std::max(c * level - det * e * e, 0.0))) * inv_c);
                }
                if (-extreme < left || -extreme > right) {
                    double e = -extreme < left ? left : right;
                    low = std::max(low, (-b * e - std::sqrt(std::max(c * level - det * e * e, 0.0))) * inv_c);
                }
            }
            int row0 = std::max((int)std::ceil(y + low - 0.5), 0);
            int row1 = std::min((int)std::floor(y + high - 0.5) + 1, height);
            if (row0 >= row1) continue;
            for (int line = row0 / TILE; line <= (row1 - 1) / TILE; line++, at++) {
                slot_tile[at] = line * tiles_x + column;
                slot_rows[at] = std::max(row0 - line * TILE, 0) | std::min(row1 - line * TILE, TILE) << 8;
            }
        }
        last[n] = at;
    }

    // Depth order, then the tiles' lists.
    std::vector<uint32_t> keys, keys_b(count);
    std::vector<int32_t> ids, ids_b(count);
    keys.reserve(count), ids.reserve(count);
    for (int n = 0; n < count; n++)
        if (radii[2 * n] > 0) {
            uint32_t bits;
            std::memcpy(&bits, &depths[n], 4);
            keys.push_back(bits), ids.push_back(n);
        }
    const int visible = ids.size();
    for (int turn = 0; turn < 3; turn++) {
        int shift = 11 * turn, counts[2048] = {};
        for (int j = 0; j < visible; j++) counts[keys[j] >> shift & 2047]++;
        for (int k = 0, at = 0; k < 2048; k++) std::swap(counts[k], at), at += counts[k];
        for (int j = 0; j < visible; j++) {
            int at = counts[keys[j] >> shift & 2047]++;
            keys_b[at] = keys[j], ids_b[at] = ids[j];
        }
        keys.swap(keys_b), ids.swap(ids_b);
        keys_b.resize(count), ids_b.resize(count);
    }
    std::vector<int32_t> tile_start(tiles + 1), tile_stop(tiles);
    for (int k = 0; k < visible; k++)
        for (int slot = first[ids[k]]; slot < last[ids[k]]; slot++) tile_start[slot_tile[slot] + 1]++;
    for (int t = 0; t < tiles; t++) tile_start[t + 1] += tile_start[t], tile_stop[t] = tile_start[t];
    std::vector<Entry> entries(slots_room);
    for (int k = 0; k < visible; k++)
        for (int slot = first[ids[k]]; slot < last[ids[k]]; slot++)
            entries[tile_stop[slot_tile[slot]]++] = {ids[k], slot_rows[slot], slot};

    std::vector<float> final_t(width * height), limit(width * height);
    const f16 ramp = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, nothing = {};

#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int tile = 0; tile < tiles; tile++) {
        alignas(64) float live[PIXELS], ended[PIXELS], until[PIXELS], colour[3][PIXELS];
        int x0 = tile % tiles_x * TILE, y0 = tile / tiles_x * TILE;
        int columns = std::min(TILE, width - x0), rows = std::min(TILE, height - y0);
        for (int p = 0; p < PIXELS; p++) {
            live[p] = p % TILE < columns && p / TILE < rows ? 1 : 0, ended[p] = 1, until[p] = NEVER;
            colour[0][p] = colour[1][p] = colour[2][p] = 0;
        }
        bool open_row[TILE];
        std::fill(open_row, open_row + TILE, true);
        int still_open = rows;
        for (int j = tile_start[tile]; j < tile_stop[tile] && still_open; j++) {
            const Record &r = records[entries[j].g];
            int top = entries[j].rows & 255, bottom = std::min(entries[j].rows >> 8, rows);
            f16 dx = ramp + (x0 + 0.5f - r.x);
            f16 at_zero = r.a * dx * dx, linear = r.b * dx;
            for (int row = top; row < bottom; row++) {
                if (!open_row[row]) continue;
                float dy = y0 + row + 0.5f - r.y;
                f16 p = at_zero + (linear + r.c * dy) * dy;
                f16 alpha = least(r.opacity * exp2_(p), spread(ALPHA_MAX));
                alpha = choose(at_most(p, nothing) & at_most(spread(ALPHA_MIN), alpha), alpha, nothing);
                f16 t = load(live + row * TILE), weight = alpha * t, after = t - weight;
                mask newly = at_most(after, spread(T_STOP)) & less(nothing, t);
                if (some(newly)) {
                    f16 ordinal = spread(j - tile_start[tile]);
                    store(ended + row * TILE, choose(newly, t, load(ended + row * TILE)));
                    store(until + row * TILE, choose(newly, ordinal, load(until + row * TILE)));
                    weight = choose(newly, nothing, weight), after = choose(newly, nothing, after);
                    if (!some(less(nothing, after))) open_row[row] = false, still_open--;
                }
                store(live + row * TILE, after);
                store(colour[0] + row * TILE, load(colour[0] + row * TILE) + r.red * weight);
                store(colour[1] + row * TILE, load(colour[1] + row * TILE) + r.green * weight);
                store(colour[2] + row * TILE, load(colour[2] + row * TILE) + r.blue * weight);
            }
        }
        for (int row = 0; row < rows; row++)
            for (int x = 0; x < columns; x++) {
                int p = row * TILE + x, q = (y0 + row) * width + x0 + x;
                float t = live[p] > 0 ? live[p] : ended[p];
                final_t[q] = t, limit[q] = until[p], alpha_out[q] = 1 - t;
                for (int k = 0; k < 3; k++) image[3 * q + k] = colour[k][p] + t * background[k];
            }
    }
    if (!v_image) return;

    std::vector<Slot> slots(slots_room);
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int tile = 0; tile < tiles; tile++) {
        alignas(64) float t_now[PIXELS], behind[PIXELS], until[PIXELS], seen[3][PIXELS], row_until[TILE] = {};
        int x0 = tile % tiles_x * TILE, y0 = tile / tiles_x * TILE;
        int columns = std::min(TILE, width - x0), rows = std::min(TILE, height - y0);
        for (int p = 0; p < PIXELS; p++) {
            t_now[p] = 1, behind[p] = until[p] = seen[0][p] = seen[1][p] = seen[2][p] = 0;
            int x = p % TILE, row = p / TILE;
            if (x >= columns || row >= rows) continue;
            int q = (y0 + row) * width + x0 + x;
            t_now[p] = final_t[q], until[p] = limit[q], row_until[row] = std::max(row_until[row], until[p]);
            for (int k = 0; k < 3; k++) seen[k][p] = v_image[3 * q + k], behind[p] += seen[k][p] * background[k];
        }
        for (int j = tile_stop[tile] - 1; j >= tile_start[tile]; j--) {
            const Record &r = records[entries[j].g];
            float ordinal = j - tile_start[tile];
            int top = entries[j].rows & 255, bottom = std::min(entries[j].rows >> 8, rows);
            f16 dx = ramp + (x0 + 0.5f - r.x);
            f16 at_zero = r.a * dx * dx, linear = r.b * dx;
            f16 g0 = nothing, g1 = nothing, g2 = nothing, red = nothing, green = nothing, blue = nothing;
            for (int row = top; row < bottom; row++) {
                if (ordinal >= row_until[row]) continue;
                float dy = y0 + row + 0.5f - r.y;
                f16 p = at_zero + (linear + r.c * dy) * dy;
                f16 raw = r.opacity * exp2_(p), alpha = least(raw, spread(ALPHA_MAX));
                mask counts = at_most(p, nothing) & at_most(spread(ALPHA_MIN), alpha);
                alpha = choose(counts & less(spread(ordinal), load(until + row * TILE)), alpha, nothing);
                f16 t = load(t_now + row * TILE) / (1.0f - alpha), weight = alpha * t;
                store(t_now + row * TILE, t);
                f16 vr = load(seen[0] + row * TILE), vg = load(seen[1] + row * TILE), vb = load(seen[2] + row * TILE);
                f16 past = load(behind + row * TILE), step = r.red * vr + r.green * vg + r.blue * vb - past;
                store(behind + row * TILE, past + alpha * step);
                f16 e = choose(at_most(raw, spread(ALPHA_MAX)), weight * step, nothing);
                red += weight * vr, green += weight * vg, blue += weight * vb;
                g0 += e, g1 += e * dy, g2 += e * (dy * dy);
            }
            float s0 = total(g0), sx = total(g0 * dx), sxx = total(g0 * dx * dx);
            float sy = total(g1), sxy = total(g1 * dx), syy = total(g2);
            slots[entries[j].slot] = {-LN2 * (2 * r.a * sx + r.b * sy), -LN2 * (r.b * sx + 2 * r.c * sy), -0.5f * sxx,
                                      -sxy, -0.5f * syy, s0 / r.opacity, total(red), total(green), total(blue)};
        }
    }

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int n = 0; n < count; n++) {
        Slot v{};
        for (int k = first[n]; k < last[n]; k++) {
            const Slot &o = slots[k];
            v.x += o.x, v.y += o.y, v.a += o.a, v.b += o.b, v.c += o.c, v.opacity += o.opacity;
            v.red += o.red, v.green += o.green, v.blue += o.blue;
        }
        v_opacities[n] = v.opacity;
        v_colors[3 * n] = v.red, v_colors[3 * n + 1] = v.green, v_colors[3 * n + 2] = v.blue;
        float *vm = v_means + 3 * n, *vq = v_quats + 4 * n, *vs = v_scales + 3 * n;
        if (radii[2 * n] <= 0) {
            std::fill(vm, vm + 3, 0), std::fill(vq, vq + 4, 0), std::fill(vs, vs + 3, 0);
            continue;
        }
        Projected p = project(s, n);
        const float *W = view, *S = scales + 3 * n;
        float iz = 1 / p.z, fx = K[0], fy = K[4];
        float ca = conics[3 * n], cb = conics[3 * n + 1], cc = conics[3 * n + 2], vb = 0.5f * v.b;
        float t00 = v.a * ca + vb * cb, t01 = v.a * cb + vb * cc, t10 = vb * ca + v.c * cb, t11 = vb * cb + v.c * cc;
        float h00 = -(ca * t00 + cb * t10), h01 = -(ca * t01 + cb * t11), h11 = -(cb * t01 + cc * t11);
        float g[9], du[3] = {}, dv[3] = {};
        for (int k = 0; k < 3; k++) {
            float nu = p.u[0] * p.r[k] + p.u[1] * p.r[3 + k] + p.u[2] * p.r[6 + k];
            float nv = p.v[0] * p.r[k] + p.v[1] * p.r[3 + k] + p.v[2] * p.r[6 + k];
            float dm = 2 * (h00 * nu + h01 * nv) * S[k], dq = 2 * (h01 * nu + h11 * nv) * S[k];
            vs[k] = dm * nu + dq * nv;
            dm *= S[k], dq *= S[k];
            for (int i = 0; i < 3; i++) {
                g[3 * i + k] = p.u[i] * dm + p.v[i] * dq;
                du[i] += dm * p.r[3 * i + k], dv[i] += dq * p.r[3 * i + k];
            }
        }
        float dju = 0, djv = 0, dtx = 0, dty = 0;
        for (int k = 0; k < 3; k++) {
            dju += du[k] * p.u[k], djv += dv[k] * p.v[k];
            dtx -= fx * iz * du[k] * W[8 + k], dty -= fy * iz * dv[k] * W[8 + k];
        }
        float gu = v.x * fx, gv = v.y * fy, dx = gu * iz, dy = gv * iz;
        float dz = -(gu * p.x + gv * p.y) * iz * iz - (dju + djv) * iz;
        if (p.in_x) dx += dtx * iz, dz -= dtx * p.x * iz * iz;
        if (p.in_y) dy += dty * iz, dz -= dty * p.y * iz * iz;
        for (int k = 0; k < 3; k++) vm[k] = W[k] * dx + W[4 + k] * dy + W[8 + k] * dz;
        const float *q = quats + 4 * n;
        float w = q[0] * p.inv, x = q[1] * p.inv, y = q[2] * p.inv, z = q[3] * p.inv;
        float d[4] = {2 * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1])),
                      2 * (-2 * x * (g[4] + g[8]) + y * (g[3] + g[1]) + z * (g[6] + g[2]) + w * (g[7] - g[5])),
                      2 * (x * (g[3] + g[1]) - 2 * y * (g[0] + g[8]) + z * (g[7] + g[5]) + w * (g[2] - g[6])),
                      2 * (x * (g[6] + g[2]) + y * (g[7] + g[5]) - 2 * z * (g[0] + g[4]) + w * (g[3] - g[1]))};
        float along = d[0] * w + d[1] * x + d[2] * y + d[3] * z;
        vq[0] = (d[0] - along * w) * p.inv, vq[1] = (d[1] - along * x) * p.inv;
        vq[2] = (d[2] - along * y) * p.inv, vq[3] = (d[3] - along * z) * p.inv;
    }
}
