using System.Threading.Tasks;

/// <summary>The game's own code, for the examples of the README.</summary>
public static class Backend
{
    public static Task<string> StreamerTokenAsync() { return Task.FromResult("eyJ"); }
}
