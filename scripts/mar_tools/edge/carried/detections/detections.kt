// What a detector gives becomes boxes: as postprocess.py does it. Untested: check it with golden.json.

// box: xyxy in the model's pixels; (x - offset) / scale of the resize gives the picture's.
class Detection(val classId: Int, val score: Float, val box: FloatArray)

// boxes (Q, 4); scores (Q, C), or (Q) with classIds. thresholds, iouThreshold, most: of options.json.
fun readDetections(
    boxes: FloatArray, scores: FloatArray, thresholds: FloatArray, iouThreshold: Float, most: Int,
    classIds: LongArray? = null, classWise: Boolean = true,
): List<Detection> {
    val perBox = if (classIds == null) thresholds.size else 1
    val found = scores.indices
        .map { i -> Detection(classIds?.get(i)?.toInt() ?: (i % perBox), scores[i], boxes.copyOfRange(i / perBox * 4, i / perBox * 4 + 4)) }
        .filter { it.score > thresholds[it.classId] }
        .sortedByDescending { it.score }
    val kept = mutableListOf<Detection>()
    for (each in found) {
        if (kept.size == most) break
        if (kept.none { (!classWise || it.classId == each.classId) && iou(it.box, each.box) > iouThreshold }) kept.add(each)
    }
    return kept
}

fun iou(a: FloatArray, b: FloatArray): Float {
    val width = maxOf(0f, minOf(a[2], b[2]) - maxOf(a[0], b[0]))
    val height = maxOf(0f, minOf(a[3], b[3]) - maxOf(a[1], b[1]))
    val shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
}
