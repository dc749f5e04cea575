// What a detector gives becomes boxes: as postprocess.py does it. Untested: check it with golden.json.

// box: xyxy in the model's pixels; (x - offset) / scale of the resize gives the picture's.
struct Detection {
    let classId: Int
    let score: Float
    let box: [Float]
}

// boxes (Q, 4); scores (Q, C), or (Q) with classIds. thresholds, iouThreshold, most: of options.json.
func readDetections(
    boxes: [Float], scores: [Float], thresholds: [Float], iouThreshold: Float, most: Int,
    classIds: [Int64]? = nil, classWise: Bool = true
) -> [Detection] {
    let perBox = classIds == nil ? thresholds.count : 1
    let found = scores.indices.compactMap { i -> Detection? in
        let classId = classIds.map { Int($0[i]) } ?? i % perBox
        guard scores[i] > thresholds[classId] else { return nil }
        let first = i / perBox * 4
        return Detection(classId: classId, score: scores[i], box: Array(boxes[first..<first + 4]))
    }.sorted { $0.score > $1.score }
    var kept: [Detection] = []
    for each in found where kept.count < most {
        let loses = kept.contains { (!classWise || $0.classId == each.classId) && iou($0.box, each.box) > iouThreshold }
        if !loses { kept.append(each) }
    }
    return kept
}

func iou(_ a: [Float], _ b: [Float]) -> Float {
    let width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    let height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    let shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
}
