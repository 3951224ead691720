"""A server of transcription with OpenAI's interface: ``las serve``.

    upload -> queue -> one thread with the model, which decodes chunks of many files -> answer

It needs the extra ``serve``.
"""
