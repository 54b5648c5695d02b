# ODConv A.2: the temperature falls from 30 to 1 over the first 10 epochs of pre-training; never downstream
custom_hooks = [dict(type='TemperatureAnnealingHook', start=30., end=1., epochs=10)]
