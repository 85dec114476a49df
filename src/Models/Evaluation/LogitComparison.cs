namespace GpuKit.Ilgpu.Models;

/// <summary>Sums of a comparison of logits with a reference, position after position, in double.</summary>
internal sealed class LogitComparison
{
    private double dot, squares, referenceSquares, differenceSquares;
    private int sameTop;

    /// <summary>Positions added.</summary>
    public int Positions { get; private set; }

    public double RelativeError => referenceSquares == 0 && differenceSquares == 0 ? 0 : Math.Sqrt(differenceSquares / referenceSquares);

    public double Cosine => CosineOf(dot, squares, referenceSquares);

    public double WorstCosine { get; private set; } = double.NaN;

    public int WorstPosition { get; private set; }

    public double TopOneAgreement => (double)sameTop / Positions;

    public void AddPosition(ReadOnlySpan<float> logits, ReadOnlySpan<float> reference)
    {
        double d = 0, s = 0, r = 0, e = 0;
        int top = 0, referenceTop = 0;
        for (int i = 0; i < logits.Length; i++)
        {
            double value = logits[i], expected = reference[i], difference = value - expected;
            d += value * expected;
            s += value * value;
            r += expected * expected;
            e += difference * difference;
            if (value > logits[top])
                top = i;
            if (expected > reference[referenceTop])
                referenceTop = i;
        }
        (dot, squares, referenceSquares, differenceSquares) = (dot + d, squares + s, referenceSquares + r, differenceSquares + e);
        sameTop += top == referenceTop ? 1 : 0;
        double cosine = CosineOf(d, s, r);
        // A NaN is the worst there is and stays.
        if (Positions == 0 || !double.IsNaN(WorstCosine) && !(cosine >= WorstCosine))
            (WorstCosine, WorstPosition) = (cosine, Positions);
        Positions++;
    }

    // Two zero vectors are equal; a zero one beside another has no direction (NaN).
    private static double CosineOf(double dot, double squares, double referenceSquares) =>
        squares == 0 && referenceSquares == 0 ? 1 : dot / Math.Sqrt(squares * referenceSquares);
}
