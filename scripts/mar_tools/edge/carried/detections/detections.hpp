// What a detector gives becomes boxes: as postprocess.py does it, and a test compares both.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

// box: xyxy in the model's pixels; (x - offset) / scale of the resize gives the picture's.
struct Detection {
    int class_id;
    float score;
    std::array<float, 4> box;
};

inline float iou(const std::array<float, 4>& a, const std::array<float, 4>& b) {
    const float width = std::max(0.0f, std::min(a[2], b[2]) - std::max(a[0], b[0]));
    const float height = std::max(0.0f, std::min(a[3], b[3]) - std::max(a[1], b[1]));
    const float shared = width * height;
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared);
}

// boxes (count, 4); scores (count, C), or (count) with class_ids. thresholds, iou_threshold, most: of options.json.
inline std::vector<Detection> read_detections(
    const float* boxes, const float* scores, std::size_t count, const std::vector<float>& thresholds,
    float iou_threshold, std::size_t most, const std::int64_t* class_ids = nullptr, bool class_wise = true) {
    const std::size_t per_box = class_ids ? 1 : thresholds.size();
    std::vector<Detection> found, kept;
    for (std::size_t i = 0; i < count * per_box; i++) {
        const int class_id = class_ids ? static_cast<int>(class_ids[i]) : static_cast<int>(i % per_box);
        const float* box = boxes + i / per_box * 4;
        if (scores[i] > thresholds[class_id]) found.push_back({class_id, scores[i], {box[0], box[1], box[2], box[3]}});
    }
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
    for (const Detection& each : found) {
        if (kept.size() == most) break;
        const bool loses = std::any_of(kept.begin(), kept.end(), [&](const Detection& other) {
            return (!class_wise || other.class_id == each.class_id) && iou(other.box, each.box) > iou_threshold;
        });
        if (!loses) kept.push_back(each);
    }
    return kept;
}
