// Passes over memory that torch makes in several: norm, gate, softmax, head loss, factor gradients.
//
// Every value is computed in float32 and rounded where transformers rounds it. T is float or bf16.
// Rows are independent of each other, so the number of threads changes no bit.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;

constexpr float LOWEST = -INFINITY;
constexpr float HIDDEN = -1e30f;  // a mask below this leaves a key no weight
constexpr int64_t LANES = 16;
constexpr int64_t CHUNK = 256;   // logits that are summed before a draw looks inside
constexpr int64_t LINE = 64;   // bytes of a cache line
constexpr int64_t AHEAD = 32;  // keys, or values, that are asked for before they are read
constexpr int ROWS = 8, COLUMNS = 256;  // of one tile of factor gradients: it fits into a cache

inline float load(float value) { return value; }

inline float load(bf16 value) {
    uint32_t bits = uint32_t(value) << 16;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

inline void store(float& place, float value) { place = value; }

// Rounds to the nearest, ties to even. NaN stays NaN.
inline void store(bf16& place, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    place = value == value ? bf16(rounded) : bf16(0x7fc0);
}

template <class T>
inline float rounded(float value) {
    T kept;
    store(kept, value);
    return load(kept);
}

// exp(x) to about one unit in the last place, in operations that compilers vectorise.
inline float exp_of(float x) {
    float bounded = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float n = std::nearbyint(bounded * 1.44269504f);
    float r = bounded - n * 0.693359375f;
    r += n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t exponent = (int32_t(n) + 127) << 23;
    float power;
    std::memcpy(&power, &exponent, sizeof power);
    float out = x < -87.0f ? 0.0f : p * power;
    return x == x ? out : x;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exp_of(-x)); }

// y = w round(x / sqrt(mean x^2 + eps)); inverse: 1 / sqrt(...) of every row
template <class T>
void norm_row(const T* __restrict x, const T* __restrict w, T* __restrict y, float& inverse,
              int64_t D, float eps) {
    float sum = 0;
    for (int64_t d = 0; d < D; d++) sum += load(x[d]) * load(x[d]);
    float scale = 1.0f / std::sqrt(sum / D + eps);
    inverse = scale;
    for (int64_t d = 0; d < D; d++) store(y[d], load(w[d]) * rounded<T>(load(x[d]) * scale));
}

template <class T>
void norm_row_back(const T* __restrict grad, const T* __restrict x, const T* __restrict w,
                   float scale, T* __restrict grad_x, int64_t D) {
    float dot = 0;
    for (int64_t d = 0; d < D; d++) dot += load(grad[d]) * load(w[d]) * load(x[d]);
    float along = dot * scale * scale / D;
    for (int64_t d = 0; d < D; d++)
        store(grad_x[d], scale * (load(grad[d]) * load(w[d]) - along * load(x[d])));
}

// y = round(silu(gate)) up
template <class T>
void gate_row(const T* __restrict gate, const T* __restrict up, T* __restrict y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float g = load(gate[i]);
        store(y[i], rounded<T>(g * sigmoid(g)) * load(up[i]));
    }
}

template <class T>
void gate_row_back(const T* __restrict grad, const T* __restrict gate, const T* __restrict up,
                   T* __restrict grad_gate, T* __restrict grad_up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float g = load(gate[i]), d = load(grad[i]), s = sigmoid(g);
        store(grad_up[i], d * g * s);
        store(grad_gate[i], d * load(up[i]) * s * (1.0f + g * (1.0f - s)));
    }
}

// y = round(x cos) + round(turned(x) sin), where turned(x) is (-second half of x, first half)
template <class T>
void rotary_row(const T* __restrict x, const T* __restrict cos, const T* __restrict sin,
                T* __restrict y, int64_t E) {
    int64_t half = E / 2;
    for (int64_t e = 0; e < half; e++) {
        float first = load(x[e]), second = load(x[e + half]);
        store(y[e], rounded<T>(first * load(cos[e])) - rounded<T>(second * load(sin[e])));
        store(y[e + half], rounded<T>(second * load(cos[e + half])) +
                               rounded<T>(first * load(sin[e + half])));
    }
}

template <class T>
void rotary_row_back(const T* __restrict grad, const T* __restrict cos, const T* __restrict sin,
                     T* __restrict grad_x, int64_t E) {
    int64_t half = E / 2;
    for (int64_t e = 0; e < half; e++) {
        float first = load(grad[e]), second = load(grad[e + half]);
        store(grad_x[e], first * load(cos[e]) + second * load(sin[e + half]));
        store(grad_x[e + half], second * load(cos[e + half]) - first * load(sin[e]));
    }
}

inline int64_t whole_lanes(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// scores = softmax(scale scores + mask), in place; room: whole_lanes(S) floats
//
// The sum runs over lanes, filled up with zeros. So keys that a mask hides change no bit of it, and
// a row computes the same in a wider batch.
template <class T>
void softmax_row(T* __restrict scores, const T* __restrict mask, float* __restrict room, int64_t S,
                 float scale) {
    for (int64_t s = 0; s < S; s++) room[s] = load(scores[s]) * scale;
    if (mask)
        for (int64_t s = 0; s < S; s++) room[s] += load(mask[s]);
    for (int64_t s = S; s < whole_lanes(S); s++) room[s] = LOWEST;
    float top = LOWEST;
#pragma omp simd reduction(max : top)
    for (int64_t s = 0; s < S; s++) top = room[s] > top ? room[s] : top;
    float lanes[LANES] = {};
    for (int64_t s = 0; s < S; s += LANES)
        for (int64_t lane = 0; lane < LANES; lane++) {
            room[s + lane] = exp_of(room[s + lane] - top);
            lanes[lane] += room[s + lane];
        }
    float sum = 0;
    for (int64_t lane = 0; lane < LANES; lane++) sum += lanes[lane];
    float share = 1.0f / sum;
    for (int64_t s = 0; s < S; s++) store(scores[s], room[s] * share);
}

// grad = scale w (grad - sum(grad w)), in place
template <class T>
void softmax_row_back(T* __restrict grad, const T* __restrict weights, int64_t S, float scale) {
    float dot = 0;
    for (int64_t s = 0; s < S; s++) dot += load(grad[s]) * load(weights[s]);
    for (int64_t s = 0; s < S; s++) store(grad[s], scale * load(weights[s]) * (load(grad[s]) - dot));
}

template <class T>
float log_sum_exp(const T* __restrict logits, int64_t V) {
    float top = LOWEST;
#pragma omp simd reduction(max : top)
    for (int64_t v = 0; v < V; v++) {
        float logit = load(logits[v]);
        top = logit > top ? logit : top;
    }
    float sum = 0;
    for (int64_t v = 0; v < V; v++) sum += exp_of(load(logits[v]) - top);
    return top + std::log(sum);
}

// logits = softmax(logits) - shares at ids, in place; returns sum over k of -share log p(id).
// Entries without a share are left out, so an id may stand twice if all but one share is 0.
template <class T>
float head_row(T* __restrict logits, const int64_t* __restrict ids, const float* __restrict shares,
               int64_t V, int64_t K) {
    float total = log_sum_exp(logits, V), loss = 0;
    std::vector<float> wanted(K);
    for (int64_t k = 0; k < K; k++) {
        if (ids[k] < 0 || ids[k] >= V) return NAN;
        float log_p = load(logits[ids[k]]) - total;
        if (shares[k] != 0) loss -= shares[k] * log_p;
        wanted[k] = exp_of(log_p) - shares[k];
    }
    for (int64_t v = 0; v < V; v++) store(logits[v], exp_of(load(logits[v]) - total));
    for (int64_t k = 0; k < K; k++)
        if (shares[k] != 0) store(logits[ids[k]], wanted[k]);
    return loss;
}

// The first index at which exp(logits / temperature), summed up to it, exceeds `random` of its
// whole sum. Chunks are summed first, and then the entries of one.
template <class T>
int64_t drawn_index(const T* __restrict logits, double random, float inverse_temperature,
                    int64_t V) {
    float top = LOWEST;
#pragma omp simd reduction(max : top)
    for (int64_t v = 0; v < V; v++) {
        float logit = load(logits[v]);
        top = logit > top ? logit : top;
    }
    int64_t chunks = (V + CHUNK - 1) / CHUNK;
    std::vector<double> until(chunks);
    double total = 0;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        int64_t end = (chunk + 1) * CHUNK < V ? (chunk + 1) * CHUNK : V;
        float sum = 0;
        for (int64_t v = chunk * CHUNK; v < end; v++)
            sum += exp_of((load(logits[v]) - top) * inverse_temperature);
        total += sum;
        until[chunk] = total;
    }
    double target = random * total;
    int64_t chunk = 0;
    while (chunk + 1 < chunks && until[chunk] <= target) chunk++;
    double reached = chunk > 0 ? until[chunk - 1] : 0;
    int64_t last = (chunk + 1) * CHUNK < V ? (chunk + 1) * CHUNK - 1 : V - 1;
    for (int64_t v = chunk * CHUNK; v < last; v++) {
        reached += exp_of((load(logits[v]) - top) * inverse_temperature);
        if (reached > target) return v;
    }
    return last;
}

// LANES floats that one instruction handles, where the processor has such vectors.
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Places __attribute__((vector_size(LANES * sizeof(int32_t))));

#if defined(__clang__)
#define PICKED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICKED(a, b, ...) __builtin_shuffle(a, b, (Places){__VA_ARGS__})
#endif

inline Lanes lanes_at(const float* from) {
    Lanes out;
    std::memcpy(&out, from, sizeof out);
    return out;
}

inline Lanes lanes_at(const bf16* from) {
    typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));
    typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return (Lanes)(__builtin_convertvector(halves, Words) << 16);
}

// Sums of neighbouring halves: of every group of lanes of a, and then of b, the first half and the
// second half are added.
inline Lanes folded_16(Lanes a, Lanes b) {
    return PICKED(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           PICKED(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

inline Lanes folded_8(Lanes a, Lanes b) {
    return PICKED(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           PICKED(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

inline Lanes folded_4(Lanes a, Lanes b) {
    return PICKED(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
           PICKED(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
}

inline Lanes folded_2(Lanes a, Lanes b) {
    return PICKED(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           PICKED(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

// The sums of LANES vectors, as one vector; the vectors are overwritten.
inline Lanes sums_of(Lanes* v) {
    for (int i = 0; i < 8; i++) v[i] = folded_16(v[2 * i], v[2 * i + 1]);
    for (int i = 0; i < 4; i++) v[i] = folded_8(v[2 * i], v[2 * i + 1]);
    for (int i = 0; i < 2; i++) v[i] = folded_4(v[2 * i], v[2 * i + 1]);
    return folded_2(v[0], v[1]);
}

// Ask for the E entries at `from`, which are read soon; also harmless where there is no memory.
template <int64_t E, class T>
inline void fetch(const T* from) {
    for (int64_t e = 0; e < E; e += LINE / int64_t(sizeof(T))) __builtin_prefetch(from + e);
}

// row = softmax(row), in place
inline void softmax_of(float* __restrict row, int64_t S) {
    float top = LOWEST, sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t s = 0; s < S; s++) top = row[s] > top ? row[s] : top;
    for (int64_t s = 0; s < S; s++) {
        row[s] = exp_of(row[s] - top);
        sum += row[s];
    }
    for (int64_t s = 0; s < S; s++) row[s] /= sum;
}

// Attention of one query token: G query heads of E = WIDTH LANES entries over S keys and values
// [S, E]. Each key and each value is read once for all heads, and asked for before that. room: G
// whole_lanes(S) floats; next: entries from these keys to those that are read afterwards
template <class T, int G, int WIDTH>
void attend_heads(const T* __restrict query, const T* __restrict keys, const T* __restrict values,
                  const T* __restrict mask, T* __restrict out, float* __restrict room, int64_t S,
                  float scale, int64_t next) {
    constexpr int64_t E = WIDTH * LANES;
    int64_t padded = whole_lanes(S);
    Lanes heads[G][WIDTH], sums[G][WIDTH];
    for (int g = 0; g < G; g++)
        for (int w = 0; w < WIDTH; w++) {
            heads[g][w] = lanes_at(query + g * E + w * LANES) * scale;
            sums[g][w] = Lanes{};
        }
    for (int64_t start = 0; start < S; start += LANES) {
        int64_t count = S - start < LANES ? S - start : LANES;
        Lanes products[G][LANES];
        for (int64_t k = count; k < LANES; k++)
            for (int g = 0; g < G; g++) products[g][k] = Lanes{};
        for (int64_t k = 0; k < count; k++) {
            const T* key = keys + (start + k) * E;
            fetch<E>(key + AHEAD * E);
            fetch<E>(values + (start + k) * E);
            Lanes entries[WIDTH];
            for (int w = 0; w < WIDTH; w++) entries[w] = lanes_at(key + w * LANES);
            for (int g = 0; g < G; g++) {
                Lanes product = heads[g][0] * entries[0];
                for (int w = 1; w < WIDTH; w++) product += heads[g][w] * entries[w];
                products[g][k] = product;
            }
        }
        for (int g = 0; g < G; g++) {
            Lanes dots = sums_of(products[g]);
            std::memcpy(room + g * padded + start, &dots, sizeof dots);
        }
    }
    for (int g = 0; g < G; g++) {
        if (mask)
            for (int64_t s = 0; s < S; s++) room[g * padded + s] += load(mask[s]);
        softmax_of(room + g * padded, S);
    }
    for (int64_t s = 0; s < S; s++) {
        fetch<E>(keys + next + s * E);
        for (int w = 0; w < WIDTH; w++) {
            Lanes entries = lanes_at(values + s * E + w * LANES);
            for (int g = 0; g < G; g++) sums[g][w] += room[g * padded + s] * entries;
        }
    }
    for (int g = 0; g < G; g++)
        for (int w = 0; w < WIDTH; w++)
            for (int64_t lane = 0; lane < LANES; lane++)
                store(out[g * E + w * LANES + lane], sums[g][w][lane]);
}

// The same for heads of any size. room: S + 2 E floats
template <class T>
void attend_any(const T* __restrict query, const T* __restrict keys, const T* __restrict values,
                const T* __restrict mask, T* __restrict out, float* __restrict room, int64_t S,
                int64_t E, float scale) {
    float* __restrict scores = room;
    float* __restrict head = room + S;
    float* __restrict sums = head + E;
    for (int64_t e = 0; e < E; e++) {
        head[e] = load(query[e]) * scale;
        sums[e] = 0;
    }
    for (int64_t s = 0; s < S; s++) {
        float dot = 0;
        for (int64_t e = 0; e < E; e++) dot += head[e] * load(keys[s * E + e]);
        scores[s] = dot + (mask ? load(mask[s]) : 0.0f);
    }
    softmax_of(scores, S);
    for (int64_t s = 0; s < S; s++)
        for (int64_t e = 0; e < E; e++) sums[e] += scores[s] * load(values[s * E + e]);
    for (int64_t e = 0; e < E; e++) store(out[e], sums[e]);
}

// Some of the query heads of one key-value head: as many as `attend_heads` takes, or one. Returns
// their number.
template <class T>
int64_t attend_some(const T* query, const T* keys, const T* values, const T* mask, T* out,
                    float* room, int64_t G, int64_t S, int64_t E, float scale, int64_t next) {
#define TAKEN(HEADS, WIDTH)                                                                        \
    if (G >= HEADS && E == WIDTH * LANES) {                                                        \
        attend_heads<T, HEADS, WIDTH>(query, keys, values, mask, out, room, S, scale, next);       \
        return HEADS;                                                                              \
    }
    TAKEN(4, 4) TAKEN(3, 4) TAKEN(2, 4) TAKEN(1, 4)
    TAKEN(4, 8) TAKEN(3, 8) TAKEN(2, 8) TAKEN(1, 8)
#undef TAKEN
    attend_any(query, keys, values, mask, out, room, S, E, scale);
    return 1;
}

// out [R, C] = scale sum over n of thin [N, R] wide [N, C], for COLUMNS columns from `column` on.
// ROWS rows at a time are read once each, in order, and kept as floats.
template <class T>
void factor_tile(const T* __restrict thin, const T* __restrict wide, float* __restrict out,
                 int64_t N, int64_t R, int64_t C, int64_t column, float scale) {
    int64_t columns = C - column < COLUMNS ? C - column : COLUMNS;
    float rows[ROWS][COLUMNS] = {};
    for (int64_t r = 0; r < R; r++)
        for (int64_t c = 0; c < columns; c++) out[r * C + column + c] = 0;
    for (int64_t start = 0; start < N; start += ROWS) {
        int64_t count = N - start < ROWS ? N - start : ROWS;
        for (int64_t n = 0; n < count; n++) {
            const T* from = wide + (start + n) * C + column;
            for (int64_t c = 0; c < columns; c++) rows[n][c] = load(from[c]);
        }
        for (int64_t r = 0; r < R; r++) {
            float share[ROWS] = {};
            for (int64_t n = 0; n < count; n++) share[n] = scale * load(thin[(start + n) * R + r]);
            float* __restrict sums = out + r * C + column;
            for (int64_t c = 0; c < columns; c++) {
                float sum = sums[c];
                for (int n = 0; n < ROWS; n++) sum += share[n] * rows[n][c];
                sums[c] = sum;
            }
        }
    }
}

template <class T>
void norm(const T* x, const T* w, T* y, float* inverse, int64_t N, int64_t D, float eps) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++) norm_row(x + n * D, w, y + n * D, inverse[n], D, eps);
}

template <class T>
void norm_back(const T* grad, const T* x, const T* w, const float* inverse, T* grad_x, int64_t N,
               int64_t D) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++)
        norm_row_back(grad + n * D, x + n * D, w, inverse[n], grad_x + n * D, D);
}

template <class T>
void gate(const T* gates, const T* up, T* y, int64_t N, int64_t D) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++) gate_row(gates + n * D, up + n * D, y + n * D, D);
}

template <class T>
void gate_back(const T* grad, const T* gates, const T* up, T* grad_gate, T* grad_up, int64_t N,
               int64_t D) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++)
        gate_row_back(grad + n * D, gates + n * D, up + n * D, grad_gate + n * D, grad_up + n * D,
                      D);
}

// x, y [B, H, Q, E] with the strides of their first three axes; cos, sin [B, Q, E], or [Q, E] with
// angle_rows 0
template <class T, bool IS_BACK>
void turn(const T* x, const T* cos, const T* sin, T* y, int64_t B, int64_t H, int64_t Q, int64_t E,
          int64_t angle_rows, const int64_t* x_strides, const int64_t* y_strides) {
#pragma omp parallel for if (B * H * Q > 64)
    for (int64_t bq = 0; bq < B * Q; bq++) {
        int64_t b = bq / Q, q = bq % Q, angle = (b * angle_rows + q) * E;
        for (int64_t h = 0; h < H; h++) {
            const T* from = x + b * x_strides[0] + h * x_strides[1] + q * x_strides[2];
            T* to = y + b * y_strides[0] + h * y_strides[1] + q * y_strides[2];
            if (IS_BACK)
                rotary_row_back(from, cos + angle, sin + angle, to, E);
            else
                rotary_row(from, cos + angle, sin + angle, to, E);
        }
    }
}

// scores [B, H, Q, S]; mask [B, Q, S], or [Q, S] with mask_rows 0, or null; room [B H, whole_lanes(S)]
template <class T>
void softmax(T* scores, const T* mask, float* room, int64_t B, int64_t H, int64_t Q, int64_t S,
             int64_t mask_rows, float scale) {
#pragma omp parallel for if (B * H * Q > 32)
    for (int64_t bh = 0; bh < B * H; bh++)
        for (int64_t q = 0; q < Q; q++) {
            const T* of_row = mask ? mask + (bh / H * mask_rows + q) * S : nullptr;
            softmax_row(scores + (bh * Q + q) * S, of_row, room + bh * whole_lanes(S), S, scale);
        }
}

template <class T>
void softmax_back(T* grad, const T* weights, int64_t N, int64_t S, float scale) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++) softmax_row_back(grad + n * S, weights + n * S, S, scale);
}

template <class T>
void head(T* logits, const int64_t* ids, const float* shares, float* loss, int64_t N, int64_t V,
          int64_t K) {
#pragma omp parallel for
    for (int64_t n = 0; n < N; n++)
        loss[n] = head_row(logits + n * V, ids + n * K, shares + n * K, V, K);
}

template <class T>
void log_p(const T* logits, const int64_t* targets, float* out, int64_t N, int64_t V) {
#pragma omp parallel for
    for (int64_t n = 0; n < N; n++)
        out[n] = targets[n] < 0 || targets[n] >= V
                     ? NAN
                     : load(logits[n * V + targets[n]]) - log_sum_exp(logits + n * V, V);
}

template <class T>
void draw(const T* logits, const double* random, int64_t* out, int64_t N, int64_t V,
          float inverse_temperature) {
#pragma omp parallel for
    for (int64_t n = 0; n < N; n++)
        out[n] = drawn_index(logits + n * V, random[n], inverse_temperature, V);
}

// The number of keys before the first one that is not hidden; none if all are. A hidden key has no
// weight at all. So where a row's own keys begin, in a batch that pads it, changes no bit.
template <class T>
int64_t hidden_first(const T* mask, int64_t S) {
    int64_t first = 0;
    while (first < S && load(mask[first]) < HIDDEN) first++;
    return first < S ? first : 0;
}

// query, out [B K, G, E]; keys, values [B K, room of a head, E], of which S rows are filled; mask
// [B, S], or [S] with mask_rows 0, or null
template <class T>
void attend(const T* query, const T* keys, const T* values, const T* mask, T* out, int64_t BK,
            int64_t K, int64_t G, int64_t S, int64_t E, int64_t head_stride, int64_t mask_rows,
            float scale) {
#pragma omp parallel
    {
        std::vector<float> room(4 * whole_lanes(S) + 2 * E);
#pragma omp for
        for (int64_t bk = 0; bk < BK; bk++) {
            const T* of_row = mask ? mask + bk / K * mask_rows * S : nullptr;
            int64_t first = mask ? hidden_first(of_row, S) : 0;
            const T* of_keys = keys + bk * head_stride + first * E;
            const T* of_values = values + bk * head_stride + first * E;
            for (int64_t g = 0; g < G;) {
                int64_t place = (bk * G + g) * E;
                g += attend_some(query + place, of_keys, of_values, mask ? of_row + first : nullptr,
                                 out + place, room.data(), G - g, S - first, E, scale, head_stride);
            }
        }
    }
}

template <class T>
void factor(const T* thin, const T* wide, float* out, int64_t N, int64_t R, int64_t C,
            float scale) {
#pragma omp parallel for
    for (int64_t column = 0; column < C; column += COLUMNS)
        factor_tile(thin, wide, out, N, R, C, column, scale);
}

}  // namespace


#define EXPORTED(T)                                                                                \
    extern "C" void norm_##T(const T* x, const T* w, T* y, float* inverse, int64_t N, int64_t D,   \
                             float eps) {                                                          \
        norm(x, w, y, inverse, N, D, eps);                                                         \
    }                                                                                              \
    extern "C" void norm_back_##T(const T* grad, const T* x, const T* w, const float* inverse,     \
                                  T* grad_x, int64_t N, int64_t D) {                               \
        norm_back(grad, x, w, inverse, grad_x, N, D);                                              \
    }                                                                                              \
    extern "C" void gate_##T(const T* gates, const T* up, T* y, int64_t N, int64_t D) {            \
        gate(gates, up, y, N, D);                                                                  \
    }                                                                                              \
    extern "C" void gate_back_##T(const T* grad, const T* gates, const T* up, T* grad_gate,        \
                                  T* grad_up, int64_t N, int64_t D) {                              \
        gate_back(grad, gates, up, grad_gate, grad_up, N, D);                                      \
    }                                                                                              \
    extern "C" void rotary_##T(const T* x, const T* cos, const T* sin, T* y, int64_t B, int64_t H,   \
                               int64_t Q, int64_t E, int64_t angle_rows,                           \
                               const int64_t* x_strides, const int64_t* y_strides) {               \
        turn<T, false>(x, cos, sin, y, B, H, Q, E, angle_rows, x_strides, y_strides);              \
    }                                                                                              \
    extern "C" void rotary_back_##T(const T* x, const T* cos, const T* sin, T* y, int64_t B,       \
                                    int64_t H, int64_t Q, int64_t E, int64_t angle_rows,           \
                                    const int64_t* x_strides, const int64_t* y_strides) {          \
        turn<T, true>(x, cos, sin, y, B, H, Q, E, angle_rows, x_strides, y_strides);               \
    }                                                                                              \
    extern "C" void softmax_##T(T* scores, const T* mask, float* room, int64_t B, int64_t H,       \
                                int64_t Q, int64_t S, int64_t mask_rows, float scale) {            \
        softmax(scores, mask, room, B, H, Q, S, mask_rows, scale);                                 \
    }                                                                                              \
    extern "C" void softmax_back_##T(T* grad, const T* weights, int64_t N, int64_t S,              \
                                     float scale) {                                                \
        softmax_back(grad, weights, N, S, scale);                                                  \
    }                                                                                              \
    extern "C" void head_##T(T* logits, const int64_t* ids, const float* shares, float* loss,      \
                             int64_t N, int64_t V, int64_t K) {                                    \
        head(logits, ids, shares, loss, N, V, K);                                                  \
    }                                                                                              \
    extern "C" void log_p_##T(const T* logits, const int64_t* targets, float* out, int64_t N,      \
                              int64_t V) {                                                         \
        log_p(logits, targets, out, N, V);                                                         \
    }                                                                                              \
    extern "C" void draw_##T(const T* logits, const double* random, int64_t* out, int64_t N,       \
                             int64_t V, float inverse_temperature) {                               \
        draw(logits, random, out, N, V, inverse_temperature);                                      \
    }                                                                                              \
    extern "C" void attend_##T(const T* query, const T* keys, const T* values, const T* mask,      \
                               T* out, int64_t BK, int64_t K, int64_t G, int64_t S, int64_t E,     \
                               int64_t head_stride, int64_t mask_rows, float scale) {              \
        attend(query, keys, values, mask, out, BK, K, G, S, E, head_stride, mask_rows, scale);     \
    }                                                                                              \
    extern "C" void factor_##T(const T* thin, const T* wide, float* out, int64_t N, int64_t R,     \
                               int64_t C, float scale) {                                           \
        factor(thin, wide, out, N, R, C, scale);                                                   \
    }

EXPORTED(float)
EXPORTED(bf16)
